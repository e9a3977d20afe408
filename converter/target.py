"""The seam between the pipeline and a backend: what a backend is, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.bundle import Manifest, Written
    from qconvert.dataset.preprocessing import Preprocessing
    from qconvert.errors import Problem
    from qconvert.plan import Policy
    from qconvert.report import Report
    from qconvert.runtimes import Runtime

__all__ = ["Backend", "WriteJob"]


@dataclass(frozen=True, slots=True)
class WriteJob:
    """What a backend is to write.

    Attributes:
        model: The optimized float model, or the same model with Q/DQ nodes in it. Everything
            the backend needs to know about quantization is in those nodes.
        float_model: The optimized float model; `model` itself when nothing is quantized.
        folder: An empty folder to write into.
        report: For warnings and decisions.
        options: The user's options for this target, by flag name without dashes
            (`fp16`, `keep_functions`, ...).
        adopted: Whether the Q/DQ nodes came with the source: its numbers, float biases included,
            are then the truth and nothing is rounded further.
        preprocessing: How pictures become the network's input; None where that is not known.
    """

    model: ir.Model
    float_model: ir.Model
    folder: Path
    report: Report
    options: Mapping[str, Any] = field(default_factory=dict)
    adopted: bool = False
    preprocessing: Preprocessing | None = None

    @property
    def quantized(self) -> bool:
        """Whether `model` differs from `float_model`."""
        return self.model is not self.float_model


def _nothing() -> None:
    """A runtime that is always there."""


def _anything(_: Mapping[str, Any]) -> None:
    """Options whose values need no check."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One target.

    Attributes:
        name: `ncnn`, `onnx`, `tensorrt`, `raw`.
        policy: What it can run as integers.
        write: Writes the artifact of a job into its folder. Raises `UnsupportedError` with every
            problem at once before anything is written.
        problems: Everything in a float model that the target cannot express; empty: all is well.
        open: (bundle folder, manifest) → the artifact in its real runtime.
        open_float: (bundle folder, manifest) → the bundle's float model in its runtime.
        operators: ONNX operator → the target's word for it, for `qconvert formats`.
        require: Raises `MissingRuntimeError` when the runtime is not installed; asked before
            long work begins.
        open_deployed: As `open`, with the options that the runtime has by default, where those are
            faster and less exact than the proof's; None where they are the same.
        check_options: Raises `UsageError` when the value of an option makes no sense; asked
            before long work begins.
    """

    name: str
    policy: Policy
    write: Callable[[WriteJob], Written]
    problems: Callable[[ir.Model], Sequence[Problem]]
    open: Callable[[Path, Manifest], Runtime]
    open_float: Callable[[Path, Manifest], Runtime]
    operators: Callable[[], Mapping[str, str]]
    require: Callable[[], None] = _nothing
    open_deployed: Callable[[Path, Manifest], Runtime] | None = None
    check_options: Callable[[Mapping[str, Any]], None] = _anything

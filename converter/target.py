"""The seam between the pipeline and a backend: what a backend is, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import onnx_ir as ir

    from qconvert.bundle import Manifest, Written
    from qconvert.dataset.preprocessing import Preprocessing
    from qconvert.errors import Problem
    from qconvert.plan import Policy
    from qconvert.quant import F32
    from qconvert.report import Report
    from qconvert.runtimes import Runtime

__all__ = ["Backend", "Exact", "Finding", "WriteJob"]


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
        samples: Network inputs to make golden vectors of; read as far as they are needed.
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
    samples: Iterable[Mapping[str, F32]] = ()

    @property
    def quantized(self) -> bool:
        """Whether `model` differs from `float_model`."""
        return self.model is not self.float_model


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in an artifact that its target will not like.

    Attributes:
        rule: A word for the rule.
        at: Where, e.g. `Conv 'conv1'`.
        what: What is wrong.
        refused: Whether the target refuses the artifact; else it is slow or imprecise.
    """

    rule: str
    at: str
    what: str
    refused: bool = False

    @override
    def __str__(self) -> str:
        return f"{self.at}: {self.what} [{self.rule}]"


def _nothing() -> None:
    """A runtime that is always there."""


def _any(options: Mapping[str, Any]) -> None:
    """Options that always fit."""


def _no_finding(folder: Path, manifest: Manifest) -> Sequence[Finding]:
    """An artifact that no rule is known for."""
    del folder, manifest
    return ()


def _as_it_is(model: ir.Model) -> None:
    """A float model that needs no preparation."""


@dataclass(frozen=True, slots=True)
class Exact:
    """One value of one golden case.

    Attributes:
        name: Of the value, with the layer that makes it.
        wanted: What the bundle says.
        given: What its runtime computes.
    """

    name: str
    wanted: npt.NDArray[Any]
    given: npt.NDArray[Any]


def _no_vectors(folder: Path, manifest: Manifest) -> Iterable[Exact]:
    """A bundle without golden vectors."""
    del folder, manifest
    return ()


def _any_step(manifest: Manifest) -> int | None:
    """Any difference in codes."""
    del manifest
    return None


def _as_written(model: ir.Model, manifest: Manifest) -> ir.Model:
    """A Q/DQ model that onnxruntime computes as the target does."""
    del manifest
    return model


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
        exact: (bundle folder, manifest) → what a bundle says of itself beside what its runtime
            computes, value by value in the order of the network; these have to agree to the bit.
        simulate: (Q/DQ model, manifest) → the same function with the target's own arithmetic, as
            far as onnxruntime can have it.
        largest_step: manifest → how many codes a layer may differ from the simulation, from the
            same input codes; None: verification looks at cosines alone.
        require: Raises `MissingRuntimeError` when the runtime is not installed; asked before
            long work begins.
        open_deployed: As `open`, with the options that the runtime has by default, where those are
            faster and less exact than the proof's; None where they are the same.
        check_options: Raises `UsageError` when the user's options for this target do not fit;
            asked before long work begins.
        prepare: Changes the optimized float (or Q/DQ) model in place, before anything is planned,
            so that scales are found for every value the target has a place for.
        lint: What the target will not like in a quantized ONNX model, whoever wrote it; None: it
            reads none.
        check: What it will not like in a bundle's files.
        engines: (bundle folder, manifest) → the artifact as the target's own compiler builds it
            on this machine, in each of its forms; None: there is no compiler. Raises
            `MissingRuntimeError`.
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
    check_options: Callable[[Mapping[str, Any]], None] = _any
    prepare: Callable[[ir.Model], None] = _as_it_is
    exact: Callable[[Path, Manifest], Iterable[Exact]] = _no_vectors
    largest_step: Callable[[Manifest], int | None] = _any_step
    lint: Callable[[ir.Model], Sequence[Finding]] | None = None
    check: Callable[[Path, Manifest], Sequence[Finding]] = _no_finding
    engines: Callable[[Path, Manifest], Iterator[Runtime]] | None = None
    simulate: Callable[[ir.Model, Manifest], ir.Model] = _as_written

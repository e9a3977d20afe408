"""A raw bundle's integer program behind the interface of a runtime.

Real numbers are rounded to codes on the way in and turned back on the way out; what lies between
is `qconvert.integer.executor`, and onnxruntime for float segments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from qconvert.errors import VerificationError
from qconvert.integer.executor import Executor
from qconvert.quant import QParams, dequantize
from qconvert.runtimes import Tap
from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from qconvert.integer.executor import Watch
    from qconvert.integer.program import Codes, Layer, Program, Tensor
    from qconvert.quant import F32

__all__ = ["IntegerRuntime", "real"]


class IntegerRuntime:
    """An integer program.

    Args:
        program: What to run.
        segment: A float layer's `file` → the ONNX file on disk.
        threads: Threads of float segments; 0 takes every core.
    """

    def __init__(
        self, program: Program, segment: Callable[[str], Path], *, threads: int = 0
    ) -> None:
        self.program = program
        self._executor = Executor(program, self._run_float)
        self._segment = segment
        self._threads = threads
        self._sessions: dict[str, OnnxRuntime] = {}

    @property
    def name(self) -> str:
        """What computes."""
        return "the integer executor"

    def codes(
        self,
        inputs: Mapping[str, F32],
        *,
        keep: Collection[str] | None = None,
        watch: Watch | None = None,
    ) -> dict[str, Codes]:
        """Run once; codes of the network's outputs and of the tensors to keep.

        Args:
            inputs: Network input → real numbers.
            keep: Ids of tensors.
            watch: Shown the raw sums of every layer that has any.
        """
        return self._executor.run(self.encode(inputs), keep=keep, watch=watch)

    def encode(self, inputs: Mapping[str, F32]) -> dict[str, Codes]:
        """Real inputs as codes, by tensor id.

        Raises:
            VerificationError: If the program has an input that is not fed.
        """
        fed: dict[str, Codes] = {}
        for key in self.program.inputs:
            tensor = self.program.tensors[key]
            if tensor.name not in inputs:
                raise VerificationError(
                    f"the network has no input '{tensor.name}'",
                    at=f"tensor '{key}' of the program",
                    why=f"its inputs are {', '.join(inputs)}",
                    fix="convert again",
                )
            given = np.asarray(inputs[tensor.name], dtype=np.float32)
            fed[key] = given if tensor.encoding == "float" else _rounded(given, tensor)
        return fed

    def execute(
        self,
        codes: Mapping[str, Codes],
        *,
        keep: Collection[str] | None = None,
        watch: Watch | None = None,
    ) -> dict[str, Codes]:
        """Run once from codes; see `Executor.run`."""
        return self._executor.run(codes, keep=keep, watch=watch)

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Run once; see `Runtime.run`.

        Raises:
            VerificationError: If a sum leaves its accumulator.
        """
        found = self.codes(inputs)
        return {
            name: real(self.program.tensors[key], found[key])
            for name, key in self.program.results.items()
        }

    @property
    def values(self) -> frozenset[str]:
        """Names of the values that `tap` can read."""
        return frozenset(self._ids())

    def _ids(self) -> dict[str, str]:
        """Value name → tensor; a value that is on two grids has no one answer and is left out."""
        made = [t for t in self.program.tensors.values() if not t.is_parameter]
        names = [tensor.name for tensor in made]
        ids = {t.name: t.id for t in made if names.count(t.name) == 1}
        return {**self.program.results, **ids}

    def tap(self, inputs: Mapping[str, F32], names: Sequence[str]) -> dict[str, Tap]:
        """Run once and read `names`, among `values`."""
        ids = self._ids()
        found = self.codes(inputs, keep=[ids[name] for name in names])
        taps = {}
        for name in names:
            tensor, codes = self.program.tensors[ids[name]], found[ids[name]]
            # A network output has its real numbers under its own name.
            coded = len(tensor.scale) == 1 and tensor.name == name and tensor.bits <= 16
            values = codes.astype(np.float32) if coded else real(tensor, codes)
            taps[name] = Tap(values, codes=coded)
        return taps

    def _run_float(self, layer: Layer, inputs: Sequence[Codes]) -> Sequence[Codes]:
        """A float segment in onnxruntime."""
        file = str(layer.attributes["file"])
        if file not in self._sessions:
            self._sessions[file] = OnnxRuntime(self._segment(file), threads=self._threads)
        session = self._sessions[file]
        feeds: dict[str, Any] = dict(zip(session.inputs, inputs, strict=True))
        return list(session.run(feeds).values())

    def close(self) -> None:
        """Release the float segments."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _params(tensor: Tensor) -> QParams:
    """A tensor's grid, as the arithmetic of scales knows it."""
    scale = np.asarray(tensor.scale, np.float32)
    if tensor.axis is None:
        scale = scale.reshape(())
    zero = np.full(scale.shape, tensor.zero_point, np.int32)
    return QParams(scale, zero, signed=tensor.signed, symmetric=False, axis=tensor.axis)


def _rounded(values: F32, tensor: Tensor) -> Codes:
    """Codes of real numbers: half to even, as QuantizeLinear does it, within the range."""
    scale = np.float32(tensor.scale[0])
    codes = np.rint(values / scale) + np.float32(tensor.zero_point)
    return np.asarray(np.clip(codes, tensor.low, tensor.high).astype(tensor.dtype))


def real(tensor: Tensor, codes: Codes) -> F32:
    """The numbers that codes stand for."""
    if tensor.encoding == "float":
        return np.asarray(codes, dtype=np.float32)
    return dequantize(codes, _params(tensor))

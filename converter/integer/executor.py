"""The reference executor: what a program computes, to the bit.

Every golden vector comes from here. It is exact: no step of it depends on how a processor rounds
floats (see `qconvert.integer.sums`), and a sum that leaves its declared accumulator is an error,
never a number that wrapped around.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from qconvert.errors import VerificationError
from qconvert.integer.operations import OPERATIONS, Step, average, pool_sums, requantized
from qconvert.integer.sums import Sum, conv_sums, fc_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from qconvert.integer.program import Codes, Layer, Program
    from qconvert.integer.rounding import I64

__all__ = ["Executor", "FloatStep", "Watch"]

Watch: TypeAlias = "Callable[[Layer, I64], None]"
"""Shown every layer with its raw sums."""

FloatStep: TypeAlias = "Callable[[Layer, Sequence[Codes]], Sequence[Codes]]"
"""Runs a `float` layer: codes in, codes out."""

_LINEAR = frozenset({"conv", "depthwise"})


def _no_float(layer: Layer, inputs: Sequence[Codes]) -> Sequence[Codes]:
    """For programs that have no float layers."""
    raise ValueError(f"'{layer.name}' is a float layer: a runtime has to run it ({len(inputs)})")


class Executor:
    """Runs a program.

    Args:
        program: What to run.
        run_float: Runs its float layers; None where there are none.
    """

    def __init__(self, program: Program, run_float: FloatStep | None = None) -> None:
        self.program = program
        self._run_float = run_float or _no_float
        self._sums: dict[str, Sum] = {}
        self._last = _last_readers(program)

    def run(
        self,
        inputs: Mapping[str, Codes],
        *,
        keep: Collection[str] | None = None,
        watch: Watch | None = None,
    ) -> dict[str, Codes]:
        """Run the network once.

        Args:
            inputs: Id of each network input → its codes.
            keep: Ids of tensors to return besides the network's outputs; others are dropped as
                soon as nothing reads them any more.
            watch: Shown the sums of every convolution, fully connected layer and average pool.

        Returns:
            Id → codes, of the network's outputs and what is kept.

        Raises:
            VerificationError: If an input has the wrong shape or holds codes out of range, or a
                sum leaves its accumulator.
        """
        wanted = {*self.program.outputs, *(keep or ())}
        known: dict[str, Codes] = {
            name: self._checked(name, inputs) for name in self.program.inputs
        }
        for index, layer in enumerate(self.program.layers):
            try:
                results = self._layer(layer, [known[name] for name in layer.inputs], watch)
                known.update(zip(layer.outputs, results, strict=True))
            except (IndexError, KeyError, ValueError, OverflowError) as error:
                # A program from a file may be wrong in ways that only show in its numbers.
                raise VerificationError(
                    f"layer '{layer.name}' cannot be computed",
                    at=f"layer '{layer.name}' ({layer.op})",
                    why=str(error),
                ) from error
            for name in self._last.get(index, ()):
                if name not in wanted:
                    del known[name]
        return {name: known[name] for name in known if name in wanted}

    def _checked(self, name: str, inputs: Mapping[str, Codes]) -> Codes:
        """An input, after a look at it."""
        tensor, codes = self.program.tensors[name], np.asarray(inputs[name])
        outside = codes.size and (codes.min() < tensor.low or codes.max() > tensor.high)
        if codes.shape != tensor.shape or (outside and tensor.encoding == "integer"):
            raise VerificationError(
                f"what is fed to '{tensor.name}' are not its codes",
                why=f"they are {list(codes.shape)}, {codes.min()}..{codes.max()}; "
                f"it is {list(tensor.shape)}, {tensor.low}..{tensor.high}",
            )
        return codes.astype(tensor.dtype)

    def _layer(self, layer: Layer, inputs: Sequence[Codes], watch: Watch | None) -> Sequence[Codes]:
        """The outputs of one layer."""
        if layer.op == "float":
            return self._run_float(layer, inputs)
        step = Step(self.program, layer, inputs)
        if layer.op in _LINEAR:
            return [self._conv(step, watch)]
        if layer.op == "fc":
            sums = fc_sums(self._sum(layer), inputs[0])
            _check(layer, sums)
            _show(watch, layer, sums)
            return [requantized(sums, step, axis=1)]
        if layer.op == "avg_pool":
            sums = pool_sums(step)
            _check(layer, sums)
            _show(watch, layer, sums)
            return [average(sums, step)]
        return [OPERATIONS[layer.op](step)]

    def _conv(self, step: Step, watch: Watch | None) -> Codes:
        """A convolution, some output rows at a time."""
        result = np.empty(step.output.shape, step.output.dtype)
        whole = None if watch is None else np.empty(step.output.shape, np.int64)
        for rows, sums in conv_sums(self._sum(step.layer), step.inputs[0]):
            _check(step.layer, sums)
            result[:, :, rows] = requantized(sums, step, axis=1)
            if whole is not None:
                whole[:, :, rows] = sums
        if whole is not None:
            _show(watch, step.layer, whole)
        return result

    def _sum(self, layer: Layer) -> Sum:
        """The prepared sum of a layer."""
        if layer.id not in self._sums:
            weight = self.program.parameter(layer, "weight")
            assert weight is not None
            bias = self.program.parameter(layer, "bias")
            source = self.program.tensors[layer.inputs[0]]
            self._sums[layer.id] = Sum.of(layer, weight, bias, source)
        return self._sums[layer.id]


def _show(watch: Watch | None, layer: Layer, sums: I64) -> None:
    if watch is not None:
        watch(layer, sums)


def _check(layer: Layer, sums: I64) -> None:
    """Refuse sums that the declared accumulator does not hold.

    Raises:
        VerificationError: Naming the layer.
    """
    if layer.accumulator_bits_needed <= layer.accumulator_bits or not sums.size:
        return
    limit = 1 << (layer.accumulator_bits - 1)
    low, high = int(sums.min()), int(sums.max())
    if low < -limit or high >= limit:
        raise VerificationError(
            f"layer '{layer.name}' overflows its accumulator",
            at=f"layer '{layer.name}' ({layer.op})",
            why=f"a sum reaches {low if low < -limit else high}; {layer.accumulator_bits} bits "
            f"hold {-limit}..{limit - 1}",
            fix=f"--accumulator-bits {layer.accumulator_bits_needed} holds any input; fewer bits "
            "for weights or activations need less",
        )


def _last_readers(program: Program) -> dict[int, list[str]]:
    """Index of a layer → tensors that nothing reads after it."""
    last: dict[str, int] = {}
    for index, layer in enumerate(program.layers):
        last.update(dict.fromkeys((*layer.inputs, *layer.outputs), index))
    found: dict[int, list[str]] = {}
    for name, index in last.items():
        found.setdefault(index, []).append(name)
    return found

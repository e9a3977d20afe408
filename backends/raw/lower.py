"""From a Q/DQ model to an integer program.

Every quantized activation is made either by a layer of the program, from codes, or by a float
segment. One walk in graph order decides: a pair's value is traced back through Relu and Clip, which
are bounds on codes, to the operator that makes it; where that operator has an integer form and
reads codes, it becomes a layer. Where not, what lies between codes and codes is tried as a table.
The rest is float.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.backends.raw.draft import Draft, Grid, NotInteger, Target, value_shape
from qconvert.backends.raw.elementwise import add, concat, mul, requantize
from qconvert.backends.raw.linear import conv, gemm
from qconvert.backends.raw.moves import MOVES, move
from qconvert.backends.raw.pools import average, maximum
from qconvert.backends.raw.segments import Segments
from qconvert.backends.raw.tables import table
from qconvert.errors import Problem, UnsupportedError
from qconvert.graph import constant, describe, is_output
from qconvert.integer.multiplier import is_power_of_two
from qconvert.integer.program import Numeric, Program
from qconvert.qdq import codes_of, pair_of
from qconvert.quant import quantize

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import onnx_ir as ir

    from qconvert.backends.raw.options import Options
    from qconvert.integer.program import Tensor
    from qconvert.qdq import Pair
    from qconvert.report import Report

__all__ = ["Lowered", "lower", "traced"]

_RULES: Final[Mapping[str, Callable[[Draft, ir.Node, Target], Tensor]]] = {
    "Conv": conv,
    "Gemm": gemm,
    "Add": add,
    "Sub": add,
    "Sum": add,
    "Mul": mul,
    "Concat": concat,
    "MaxPool": maximum,
    "GlobalMaxPool": maximum,
    "AveragePool": average,
    "GlobalAveragePool": average,
    "ReduceMean": average,
}
_BOUNDS: Final = frozenset({"Relu", "Clip"})
_SUMMING: Final = frozenset({"conv", "depthwise", "fc", "avg_pool"})
_WIDTHS: Final = (32, 40, 48, 56, 62)
"""Accumulators that are declared when the user names none: the first that holds every sum."""


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """An integer program and what runs beside it.

    Attributes:
        program: The program.
        segments: Path of each float segment in the bundle → its ONNX file.
        floats: Layer name → why it is float.
    """

    program: Program
    segments: Mapping[str, bytes]
    floats: Mapping[str, str]


def lower(model: ir.Model, options: Options, report: Report) -> Lowered:
    """Lower a Q/DQ model.

    Raises:
        UnsupportedError: If `options.integer_only` and something is left in float; names
            everything that is.
    """
    return _Lowering(model, Draft(options, report, _all_powers(model))).run()


def _all_powers(model: ir.Model) -> bool:
    """Whether every scale of the model is a power of two."""
    scales: list[float] = []
    for node in model.graph:
        value = node.outputs[0]
        found = pair_of(value) or codes_of(value)
        if found is not None:
            scales += found.params.scale.reshape(-1).tolist()
    return bool(scales) and all(is_power_of_two(scale) for scale in scales)


@dataclass(slots=True)
class _Lowering:
    """One model on its way."""

    model: ir.Model
    draft: Draft
    why: dict[str, str] = field(default_factory=dict)

    def run(self) -> Lowered:
        """Walk the graph, then gather what stays float."""
        segments = Segments(self.model, self.draft, self._sums)
        for node in self.model.graph:
            pair = pair_of(node.outputs[0]) if node.op_type == "DequantizeLinear" else None
            if pair is None or not (pair.output.uses() or is_output(pair.output)):
                continue
            if not self._make(pair):
                segments.quantized(pair, self.draft.activation(_target(pair)))
        for output in self.model.graph.outputs:
            if output not in self.draft.known and not self._sums(output):
                segments.output(output)
        results = segments.finish()
        floats = {
            str(node.name): self.why.get(str(node.name), f"{node.op_type} has no integer form")
            for node in segments.nodes
        }
        self._judge(segments.nodes, floats)
        return Lowered(self._program(segments, results), segments.files, floats)

    def _make(self, pair: Pair) -> bool:
        """Make a pair's codes by a layer, or as a network input."""
        target = _target(pair)
        if pair.source.producer() is None:
            tensor = self.draft.activation(target, "input")
        else:
            made = self._try(pair.source, target)
            if made is None:
                return False
            tensor = made
        self.draft.known[pair.output] = tensor.id
        return True

    def _try(self, value: ir.Value, target: Target) -> Tensor | None:
        """A layer that makes `value` on the target's grid, or why there is none."""
        base, clamp, chain = traced(value, target.grid, self.draft.known)
        bounded = replace(target, clamp=clamp) if chain else target
        mark = self.draft.mark()
        attempts: tuple[Callable[[], Tensor], ...] = (
            lambda: self._native(base, bounded, chain),
            lambda: table(self.draft, self.model, value, _name(value), target),
        )
        reasons = []
        for attempt in attempts:
            try:
                return attempt()
            except NotInteger as reason:
                self.draft.rollback(mark)
                reasons.append(str(reason))
        node = base.producer() or value.producer()
        if node is not None:
            listed = node.op_type in _RULES or node.op_type in MOVES
            self.why.setdefault(str(node.name), reasons[0 if listed else 1])
        return None

    def _native(self, base: ir.Value, target: Target, chain: list[ir.Node]) -> Tensor:
        """The operator that makes `base` as a layer."""
        if base in self.draft.known:
            name = str(chain[0].name) if chain else f"{target.name}/requantize"
            return requantize(self.draft, name, self.draft.tensor_of(base), target)
        node = base.producer()
        if node is None or node.domain:
            raise NotInteger("it has no integer form")
        if node.op_type in MOVES:
            return move(self.draft, node, base, target)
        if node.op_type not in _RULES:
            raise NotInteger(f"{node.op_type} has no integer form")
        return _RULES[node.op_type](self.draft, node, target)

    def _sums(self, value: ir.Value) -> bool:
        """Let the sums of a layer leave as they are: `value` has no scale of its own."""
        node = value.producer()
        if node is None or node.domain or node.op_type not in {"Conv", "Gemm"}:
            return False
        mark = self.draft.mark()
        try:
            made = _RULES[node.op_type](
                self.draft, node, Target(str(value.name), value_shape(value), None)
            )
        except NotInteger as reason:
            self.draft.rollback(mark)
            self.why.setdefault(str(node.name), str(reason))
            return False
        self.draft.known[value] = made.id
        return True

    def _judge(self, nodes: list[ir.Node], floats: Mapping[str, str]) -> None:
        """Refuse float boundaries where the user wants none."""
        if not nodes or not self.draft.options.integer_only:
            return
        problems = [
            Problem(f"operator {node.op_type}", describe(node), floats[str(node.name)])
            for node in nodes
        ]
        raise UnsupportedError.of(
            problems,
            who="an integer program",
            fix="leave --integer-only out: these become float boundaries",
        )

    def _program(self, segments: Segments, results: Mapping[str, str]) -> Program:
        """Everything in an order in which it can run."""
        draft, options = self.draft, self.draft.options
        placed = sorted([*draft.layers, *segments.layers], key=lambda pair: pair[0])
        needed = max((n.accumulator_bits_needed for _, n in placed if n.op in _SUMMING), default=0)
        declared = options.accumulator_bits or next(w for w in _WIDTHS if needed <= w)
        layers = tuple(
            replace(layer, accumulator_bits=declared) if layer.op in _SUMMING else layer
            for _, layer in placed
        )
        for layer in layers:
            if layer.op in _SUMMING and layer.accumulator_bits_needed > declared:
                draft.report.warn(
                    f"'{layer.name}' can need {layer.accumulator_bits_needed} bits for its sums, "
                    f"{declared} are declared: every sum of every run is checked"
                )
        tensors = {
            key: replace(tensor, role="output")
            if key in results.values() and tensor.role == "activation"
            else tensor
            for key, tensor in draft.tensors.items()
        }
        numeric = Numeric(
            options.requantize,
            "power_of_two" if draft.power_of_two else "fixed_point",
            options.multiplier_bits,
            declared,
            options.bias_bits,
        )
        inputs = tuple(key for key, tensor in tensors.items() if tensor.role == "input")
        return Program(numeric, tensors, layers, inputs, results)


def traced(
    value: ir.Value, grid: Grid | None, known: Collection[ir.Value]
) -> tuple[ir.Value, tuple[int, int], list[ir.Node]]:
    """What is behind the Relu and Clip nodes before `value`.

    Args:
        value: Where to begin.
        grid: The grid that `value` is rounded to.
        known: Values to stop at.

    Returns:
        The value before these nodes, what they leave of the grid's codes, and the nodes.
    """
    if grid is None:
        return value, (0, 0), []
    base, clamp = value, (grid.low, grid.high)
    chain: list[ir.Node] = []
    while (node := base.producer()) is not None and node.op_type in _BOUNDS:
        try:
            clamp = _bounded(clamp, node, grid)
        except NotInteger:
            return value, (grid.low, grid.high), []
        chain.append(node)
        assert node.inputs[0] is not None
        base = node.inputs[0]
        if base in known:
            break
    return base, clamp, chain


def _target(pair: Pair) -> Target:
    """What a pair asks for."""
    grid = Grid.of(pair)
    shape = value_shape(pair.source)
    return Target(str(pair.source.name), shape, grid, (grid.low, grid.high))


def _name(value: ir.Value) -> str:
    """The name of the layer that makes a value."""
    node = value.producer()
    return str(value.name) if node is None else str(node.name)


def _bounded(clamp: tuple[int, int], node: ir.Node, grid: Grid) -> tuple[int, int]:
    """A clamp with a Relu or Clip in it; rounding keeps order, so that bounds may be rounded."""
    low, high = clamp
    if node.op_type == "Relu":
        return max(low, grid.zero_point), max(high, grid.zero_point)
    bounds: list[int | None] = []
    for index in (1, 2):
        given = node.inputs[index] if len(node.inputs) > index else None
        if given is None:
            bounds.append(None)
            continue
        known = constant(given)
        if known is None:
            raise NotInteger("its bounds are computed at run time")
        real = np.asarray(known, np.float32).reshape(())
        bounds.append(int(np.clip(quantize(real, grid.params), grid.low, grid.high)))
    first, last = bounds
    # As Clip does it: the upper bound wins where the two cross.
    low = low if first is None else max(low, min(first, high))
    high = high if last is None else min(high, last)
    return min(low, high), high

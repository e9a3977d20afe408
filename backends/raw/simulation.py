"""The Q/DQ model with its sums in integers, for onnxruntime: the same function, rounded once.

    dq(x) * dq(w)  →  s_x s_w (x * w)

A float32 convolution of real numbers rounds each product and sum a little, and once in a million
codes that decides which way a code is rounded. From there the difference grows through the
network. A convolution of codes is exact in float32 as long as its sums stay below 2^24, and the
factor that follows is applied in float64, with the program's own rule for ties. What is left for
comparison is what the program should do, computed by somebody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from qconvert.backends.raw.draft import Grid, NotInteger
from qconvert.backends.raw.lower import traced
from qconvert.graph import constant
from qconvert.qdq import codes_of, pair_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.bundle import Manifest
    from qconvert.integer.program import Rounding
    from qconvert.qdq import Pair

__all__ = ["largest_step", "simulation"]

_EXACT: Final = 1 << 24


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """A layer whose sums can be had in integers.

    Attributes:
        node: The Conv or Gemm.
        pair: What its result is rounded to.
        source: The pair it reads.
        weight: Integers, in the shape the node has them.
        unit: Scale of a product, [outputs].
        clamp: Bounds on the codes.
    """

    node: ir.Node
    pair: Pair
    source: Pair
    weight: npt.NDArray[np.float32]
    unit: npt.NDArray[np.float64]
    clamp: tuple[int, int]


def largest_step(manifest: Manifest) -> int:
    """How many codes a layer of a bundle may differ from a Q/DQ model in float.

    One, for a rule of rounding and for the rounding of float sums. Multipliers and biases that are
    no wider than the codes they make cannot tell neighbouring codes apart, which adds to it.
    """
    numeric, tensors = manifest.extra["numeric"], manifest.extra["tensors"].values()
    kinds = {"activation", "output"}
    widest = max((t["bits"] for t in tensors if t["role"] in kinds and t["bits"] <= 16), default=8)
    narrowest = min(numeric["multiplier_bits"], numeric["bias_bits"])
    return 1 + ((1 << int(widest)) >> int(narrowest))


def simulation(model: ir.Model, manifest: Manifest) -> ir.Model:
    """A copy of a Q/DQ model that sums integers where that is exact; elsewhere it stays as it is.

    Args:
        model: The Q/DQ model a bundle was made of.
        manifest: Of the bundle.
    """
    copy = model.clone()
    rounding: Rounding = manifest.extra["numeric"]["rounding"]
    pairs = [pair_of(node.outputs[0]) for node in copy.graph if node.op_type == "DequantizeLinear"]
    # All of them are looked for first: a pair is one no more when its layer is rewritten.
    found = [pair for pair in pairs if pair is not None]
    layers, sums = [_found(pair) for pair in found], [_added(pair) for pair in found]
    for layer in layers:
        if layer is not None:
            _rewrite(copy.graph, layer, rounding)
    for added in sums:
        if added is not None:
            _rewrite_sum(copy.graph, added, rounding)
    return copy


@dataclass(frozen=True, slots=True, eq=False)
class _Sum:
    """An Add or Sub of two activations.

    Attributes:
        pair: What its result is rounded to.
        sources: The pairs it reads, with their signs.
        clamp: Bounds on the codes.
    """

    pair: Pair
    sources: tuple[tuple[Pair, int], ...]
    clamp: tuple[int, int]


def _added(pair: Pair) -> _Sum | None:
    """The sum behind a pair."""
    base, clamp, _ = traced(pair.source, Grid.of(pair), frozenset())
    node = base.producer()
    if node is None or node.domain or node.op_type not in {"Add", "Sub"}:
        return None
    signs = (1, -1 if node.op_type == "Sub" else 1)
    sources = [(pair_of(value), sign) for value, sign in zip(node.inputs, signs, strict=True)]
    known = tuple((source, sign) for source, sign in sources if source is not None)
    return _Sum(pair, known, clamp) if len(known) == 2 else None


def _found(pair: Pair) -> _Layer | None:
    """The layer behind a pair."""
    grid = Grid.of(pair)
    base, clamp, _ = traced(pair.source, grid, frozenset())
    node = base.producer()
    if node is None or node.domain or node.op_type not in {"Conv", "Gemm"}:
        return None
    source, codes = pair_of(node.inputs[0]), codes_of(node.inputs[1])
    if source is None or codes is None or codes.params.axis not in (None, _axis(node)):
        return None
    try:
        weight = _integers(codes.codes, codes.params)
    except NotInteger:
        return None
    spread = tuple(axis for axis in range(weight.ndim) if axis != _axis(node))
    reach = Grid.of(source)
    largest = max(reach.high - reach.zero_point, reach.zero_point - reach.low)
    if np.abs(weight).sum(axis=spread).max(initial=0) * largest >= _EXACT:
        return None
    unit = codes.params.scale.astype(np.float64) * float(source.params.scale)
    if codes.params.log2:
        unit = unit * 2.0 ** (2 - 2 ** (codes.params.bits - 1))
    outputs = weight.shape[_axis(node)]
    return _Layer(node, pair, source, weight, np.broadcast_to(unit, (outputs,)), clamp)


def _axis(node: ir.Node) -> int:
    """The axis of the weight that counts outputs."""
    return 1 if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 0 else 0


def _integers(codes: npt.NDArray[Any], params: Any) -> npt.NDArray[np.float32]:  # noqa: ANN401 - QParams
    """What the codes of a weight multiply with."""
    wide = codes.astype(np.int64)
    if params.log2:
        return np.asarray(np.sign(wide) << np.maximum(np.abs(wide) - 1, 0)).astype(np.float32)
    if params.zero_point.any():
        raise NotInteger("its weight has a zero point")
    return wide.astype(np.float32)


class _Scribe:
    """Writes the integer form of one layer in the place of its QuantizeLinear.

    Args:
        graph: The graph.
        pair: What the layer's result is rounded to.
    """

    def __init__(self, graph: ir.Graph, pair: Pair) -> None:
        self.graph = graph
        self.pair = pair
        self.tape = ir.tape.Tape()
        self.grid = Grid.of(pair)
        self._name = f"{pair.source.name}/integer"

    def held(self, part: str, array: npt.NDArray[Any]) -> ir.Value:
        """A constant."""
        tensor = ir.tensor(array, name=f"{self._name}/{part}")
        value = ir.val(f"{self._name}/{part}", tensor.dtype, tensor.shape.numpy())
        value.const_value = tensor
        self.graph.register_initializer(value)
        return value

    def number(self, part: str, value: float) -> ir.Value:
        """A constant of one number."""
        return self.held(part, np.asarray(value, np.float64))

    def codes(self, source: Pair, part: str, kind: ir.DataType) -> ir.Value:
        """What layers read at a pair, without its zero point."""
        cast = self.tape.op("Cast", [source.nodes[-1].inputs[0]], {"to": kind})
        zero = int(source.params.zero_point)
        return (
            cast
            if not zero
            else self.tape.op("Sub", [cast, self.held(part, np.asarray(zero, kind.numpy()))])
        )

    def finish(self, scaled: ir.Value, rounding: Rounding, clamp: tuple[int, int]) -> None:
        """Round, add the zero point, clamp, and take the place of the QuantizeLinear."""
        tape, first = self.tape, self.pair.nodes[0]
        rounded = tape.op(
            "Add", [self._rounded(scaled, rounding), self.number("offset", self.grid.zero_point)]
        )
        bounds = [self.number("low", clamp[0]), self.number("high", clamp[1])]
        bounded = tape.op("Clip", [rounded, *bounds])
        old = first.outputs[0]
        assert old.dtype is not None
        result = tape.op("Cast", [bounded], {"to": old.dtype})
        for index, step in enumerate(tape.nodes):
            step.name = f"{self._name}/step_{index}"
            step.outputs[0].name = f"{self._name}/value_{index}"
        ir.convenience.replace_nodes_and_values(
            self.graph, first, [first], list(tape.nodes), [old], [result]
        )

    def _rounded(self, value: ir.Value, rounding: Rounding) -> ir.Value:
        """A value rounded to whole numbers by a rule."""
        tape = self.tape
        if rounding == "half_even":
            return tape.op("Round", [value])
        half = self.number("half", 0.5)
        if rounding == "half_up":
            return tape.op("Floor", [tape.op("Add", [value, half])])
        up = tape.op("Floor", [tape.op("Add", [tape.op("Abs", [value]), half])])
        return tape.op("Mul", [tape.op("Sign", [value]), up])


def _rewrite(graph: ir.Graph, layer: _Layer, rounding: Rounding) -> None:
    """Give a convolution or matrix product its integer form."""
    scribe, node = _Scribe(graph, layer.pair), layer.node
    tape, source = scribe.tape, layer.pair.source
    along = (1, -1, *(1,) * ((2 if source.shape is None else source.shape.rank()) - 2))
    x = scribe.codes(layer.source, "zero", ir.DataType.FLOAT)
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    made = tape.op(node.op_type, [x, scribe.held("weight", layer.weight)], given)
    sums = tape.op("Cast", [made], {"to": ir.DataType.DOUBLE})
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        added = np.rint(bias.astype(np.float64).reshape(-1) / layer.unit)
        sums = tape.op("Add", [sums, scribe.held("bias", added.reshape(along))])
    factor = (layer.unit / scribe.grid.scale).reshape(along)
    scribe.finish(tape.op("Mul", [sums, scribe.held("factor", factor)]), rounding, layer.clamp)


def _rewrite_sum(graph: ir.Graph, added: _Sum, rounding: Rounding) -> None:
    """Give an addition its integer form."""
    scribe = _Scribe(graph, added.pair)
    terms = []
    for index, (source, sign) in enumerate(added.sources):
        factor = sign * float(source.params.scale) / scribe.grid.scale
        codes = scribe.codes(source, f"zero_{index}", ir.DataType.DOUBLE)
        terms.append(scribe.tape.op("Mul", [codes, scribe.number(f"factor_{index}", factor)]))
    scribe.finish(scribe.tape.op("Add", terms), rounding, added.clamp)

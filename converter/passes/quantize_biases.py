"""Store the biases of integer layers as integers, in the unit of the accumulator.

    s t Σ q p + b = s t ( Σ q p + round(b / (s t)) ),    s the input's scale, t the channel's

so an integer layer adds its bias before anything is scaled back. The bias moves by at most half of
s t. A channel whose weights are all zero may have any t; it gets the smallest of its neighbours',
so that its bias, all that is left of it, stays precise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import onnx_ir as ir
from typing_extensions import override

from qconvert.graph import constant
from qconvert.passes.linear import LINEAR, bias_of, channels, output_axis
from qconvert.passes.rewrite import NodePass, add_initializer, set_constant
from qconvert.qdq import Codes, Pair, codes_of, pair_of

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["QuantizeBiases"]

_LARGEST: Final = 2**31 - 1


class _Parts(NamedTuple):
    """What an integer layer with a float bias is made of."""

    pair: Pair
    codes: Codes
    bias: npt.NDArray[np.float64]


def _parts(node: ir.Node) -> _Parts | None:
    """The parts of `node`; None when it is not an integer layer with a constant float bias."""
    if node.op_type not in LINEAR or node.domain or len(node.inputs) < 3:
        return None
    pair, codes = pair_of(node.inputs[0]), codes_of(node.inputs[1])
    bias = bias_of(node)
    return None if pair is None or codes is None or bias is None else _Parts(pair, codes, bias)


def _weight_scale(node: ir.Node, codes: Codes) -> npt.NDArray[np.float32]:
    """One weight scale per output channel, precise ones for dead channels."""
    scale = np.broadcast_to(codes.params.scale.reshape(-1), (_columns(node, codes),)).copy()
    rows = np.moveaxis(codes.codes, output_axis(node), 0).reshape(scale.size, -1)
    dead = ~rows.any(axis=1)
    if codes.params.axis is not None and dead.any() and not dead.all():
        scale[dead] = scale[~dead].min()
    return scale


def _columns(node: ir.Node, codes: Codes) -> int:
    """Scales along the output axis of the weight (per group in a ConvTranspose)."""
    return int(codes.codes.shape[output_axis(node)])


def _step(node: ir.Node, parts: _Parts) -> npt.NDArray[np.float32]:
    """The unit of each output's accumulator, float32 as a runtime computes it."""
    scale = _weight_scale(node, parts.codes)
    groups = channels(node) // scale.size
    return np.asarray(parts.pair.params.scale * np.tile(scale, groups), dtype=np.float32)


class QuantizeBiases(NodePass):
    """Give every integer layer an int32 bias and its DequantizeLinear."""

    step = "quantize_biases"

    @override
    def matches(self, node: ir.Node) -> bool:
        return _parts(node) is not None

    @override
    def why_not(self, node: ir.Node) -> str | None:
        parts = _parts(node)
        assert parts is not None
        if parts.codes.params.axis not in (None, output_axis(node)):
            return "the scales of its weight run along another axis than its outputs"
        with np.errstate(over="ignore", divide="ignore"):
            integers = np.abs(parts.bias / _step(node, parts).astype(np.float64))
        if not (integers <= _LARGEST).all():
            return "its bias does not fit 32 bits in units of input scale times weight scale"
        return None

    @override
    def rewrite(self, node: ir.Node) -> None:
        parts, graph = _parts(node), node.graph
        assert parts is not None
        assert isinstance(graph, ir.Graph)
        old, step = node.inputs[2], _step(node, parts)
        assert old is not None
        scale = _weight_scale(node, parts.codes)
        if parts.codes.params.axis is not None and (scale != parts.codes.params.scale).any():
            set_constant(parts.codes.node, 1, scale, "scale")
        integers = np.rint(parts.bias / step.astype(np.float64)).astype(np.int32)
        name = str(old.name)
        inputs = [
            add_initializer(graph, f"{name}/codes", integers),
            add_initializer(graph, f"{name}/scale", step),
            add_initializer(graph, f"{name}/zero_point", np.zeros_like(integers)),
        ]
        output = ir.val(
            f"{node.name}/{name}/dequantized", dtype=ir.DataType.FLOAT, shape=integers.shape
        )
        dequantizer = ir.node(
            "DequantizeLinear", inputs, {"axis": 0}, outputs=[output],
            name=f"{node.name}/{name}/dequantize",
        )  # fmt: skip
        graph.insert_before(node, dequantizer)
        node.replace_input_with(2, output)
        if constant(old) is not None and not old.uses():
            del graph.initializers[name]

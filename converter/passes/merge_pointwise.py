"""Multiply two 1x1 convolutions into one, where that is less work.

    V (W x + a) + b = (V W) x + (V a + b)

With I inputs, M channels between and O outputs, the pair costs (I + O) M products a pixel and the
one costs I O: it pays unless M is a bottleneck.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from qconvert.graph import constant, sole_consumer
from qconvert.passes.linear import bias_of, why_not_biased
from qconvert.passes.rewrite import NodePass, set_constant

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["MergePointwise"]


def _is_pointwise(node: ir.Node | None) -> bool:
    """Whether `node` is a 1x1 Conv with constant weights that visits every pixel once."""
    if node is None or node.op_type != "Conv" or node.domain:
        return False
    weight = constant(node.inputs[1])
    return (
        weight is not None
        and all(size == 1 for size in weight.shape[2:])
        and node.attributes.get_int("group", 1) == 1
        and not any(node.attributes.get_ints("pads", ()))
        and all(step == 1 for step in node.attributes.get_ints("strides", ()))
        and node.attributes.get_string("auto_pad", "NOTSET") in {"NOTSET", "VALID"}
    )


class MergePointwise(NodePass):
    """Remove the first of two 1x1 Convs that follow one another."""

    step = "merge_pointwise"

    @override
    def matches(self, node: ir.Node) -> bool:
        reader = sole_consumer(node.outputs[0])
        return (
            _is_pointwise(node)
            and _is_pointwise(reader)
            and reader is not None
            and reader.inputs[0] is node.outputs[0]
        )

    @override
    def why_not(self, node: ir.Node) -> str | None:
        reader = sole_consumer(node.outputs[0])
        assert reader is not None
        first, second = constant(node.inputs[1]), constant(reader.inputs[1])
        assert first is not None
        assert second is not None
        between, inputs = first.shape[:2]
        outputs = second.shape[0]
        if inputs * outputs > (inputs + outputs) * between:
            return f"it is a bottleneck of {between} channels, cheaper than its product"
        return why_not_biased(node) or why_not_biased(reader)

    @override
    def rewrite(self, node: ir.Node) -> None:
        reader = sole_consumer(node.outputs[0])
        assert reader is not None
        first, second = constant(node.inputs[1]), constant(reader.inputs[1])
        assert first is not None
        assert second is not None
        left = second.astype(np.float64).reshape(second.shape[:2])
        right = first.astype(np.float64).reshape(first.shape[:2])
        shift, bias = bias_of(node), bias_of(reader)
        weight = (left @ right).reshape(second.shape[0], first.shape[1], *second.shape[2:])
        set_constant(reader, 1, weight.astype(np.float32), "weight")
        if shift is not None:
            moved = left @ shift
            bias = moved if bias is None else bias + moved
            set_constant(reader, 2, bias.astype(np.float32), "bias")
        reader.replace_input_with(0, node.inputs[0])
        assert node.graph is not None
        node.graph.remove(node, safe=True)

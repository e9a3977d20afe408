"""Fold a Pad by zeros into the Conv that reads it.

A Conv with pads sees zeros around its input, so Conv(Pad(x, a), b) = Conv(x, a + b) when Pad adds
zeros at the sides of the spatial axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from typing_extensions import override

from qconvert.graph import constant, sole_consumer
from qconvert.passes.rewrite import NodePass, known_shape

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["FoldPad"]


def _amounts(node: ir.Node) -> npt.NDArray[np.int64] | None:
    """What a Pad adds, [2, rank]: at the begins and at the ends; None when it is computed."""
    shape, pads = known_shape(node.inputs[0]), constant(node.inputs[1])
    if shape is None or pads is None:
        return None
    rank = len(shape)
    given = node.inputs[3] if len(node.inputs) > 3 else None
    axes = constant(given) if given is not None else np.arange(rank)
    if axes is None:
        return None
    amounts = np.zeros((2, rank), np.int64)
    amounts[:, axes.astype(np.int64)] = pads.astype(np.int64).reshape(2, -1)
    return amounts


class FoldPad(NodePass):
    """Remove every Pad by zeros in front of a Conv."""

    step = "fold_pad"

    @override
    def matches(self, node: ir.Node) -> bool:
        reader = sole_consumer(node.outputs[0])
        if node.op_type != "Pad" or node.domain or reader is None:
            return False
        return reader.op_type == "Conv" and not reader.domain and reader.inputs[0] in node.outputs

    @override
    def why_not(self, node: ir.Node) -> str | None:
        reader, amounts = sole_consumer(node.outputs[0]), _amounts(node)
        assert reader is not None
        if amounts is None:
            return "its amounts are computed at run time"
        if (amounts < 0).any() or amounts[:, :2].any():
            return "it pads other axes than the Conv does, or cuts"
        if node.attributes.get_string("mode", "constant") != "constant":
            return "it does not pad with zeros"
        fill = node.inputs[2] if len(node.inputs) > 2 else None
        value = constant(fill) if fill is not None else np.zeros(1)
        if value is None or value.any():
            return "it does not pad with zeros"
        if reader.attributes.get_string("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
            return f"'{reader.name}' pads by itself (auto_pad)"
        return None

    @override
    def rewrite(self, node: ir.Node) -> None:
        reader, amounts = sole_consumer(node.outputs[0]), _amounts(node)
        assert reader is not None
        assert amounts is not None
        extra = amounts[:, 2:].reshape(-1)
        pads = reader.attributes.get_ints("pads", (0,) * extra.size)
        total = [int(one) + int(two) for one, two in zip(pads, extra, strict=True)]
        reader.attributes["pads"] = ir.AttrInt64s("pads", total)
        reader.attributes.pop("auto_pad", None)
        reader.replace_input_with(0, node.inputs[0])
        assert node.graph is not None
        node.graph.remove(node, safe=True)

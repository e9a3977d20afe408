"""Recognize space-to-depth written out as strided slices (the Focus layer of YOLOv5).

    concat of x[:, :, i::b, j::b] over all b^2 pairs (i, j)  =  SpaceToDepth(x; b)

with the blocks in the order (0,0), (0,1), ..., row by row. Focus goes column by column. Where one
Conv without groups reads the result, the order is moved into its weights, which are a sum over
input channels and do not mind: sum_c w[c] y[c] = sum_c w[p(c)] y[p(c)].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx_ir as ir
from typing_extensions import override

from qconvert.graph import constant, sole_consumer
from qconvert.passes.match import made_by
from qconvert.passes.rewrite import NodePass, known_shape, set_constant

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["RecognizeFocus"]


class _Block(NamedTuple):
    """One strided view of an image."""

    source: ir.Value
    offsets: dict[int, int]
    steps: dict[int, int]


def _ints(node: ir.Node, index: int) -> list[int] | None:
    array = constant(node.inputs[index]) if index < len(node.inputs) else None
    return None if array is None else [int(number) for number in array.reshape(-1).tolist()]


def _block(value: ir.Value | None) -> _Block | None:
    """The view that a chain of Slices makes of its source; None when it cuts anything off."""
    offsets: dict[int, int] = {}
    steps: dict[int, int] = {}
    while value is not None and (node := made_by(value, "Slice")) is not None:
        shape = known_shape(node.inputs[0])
        starts, ends, axes, strides = (_ints(node, index) for index in (1, 2, 3, 4))
        if shape is None or starts is None or ends is None or axes is None or strides is None:
            return None
        for start, end, axis, step in zip(starts, ends, axes, strides, strict=True):
            place = axis % len(shape)
            if place in steps or start < 0 or 0 <= end < shape[place]:
                return None
            offsets[place], steps[place] = start, step
        value = node.inputs[0]
    return None if value is None or not steps else _Block(value, offsets, steps)


def _blocks(node: ir.Node) -> tuple[ir.Value, int, list[int]] | None:
    """Source, block size, and the order of the blocks that a Concat joins."""
    if node.attributes.get_int("axis", 0) not in (1, -3):
        return None
    found = [_block(value) for value in node.inputs]
    views = [view for view in found if view is not None]
    size = round(len(views) ** 0.5)
    if len(views) != len(found) or size < 2 or size * size != len(views):
        return None
    source = views[0].source
    shape = known_shape(source)
    if shape is None or len(shape) != 4 or any(side % size for side in shape[2:]):
        return None
    if any(view.source is not source or view.steps != {2: size, 3: size} for view in views):
        return None
    if any(offset >= size for view in views for offset in view.offsets.values()):
        return None
    order = [view.offsets[2] * size + view.offsets[3] for view in views]
    return (source, size, order) if sorted(order) == list(range(size * size)) else None


class RecognizeFocus(NodePass):
    """Put SpaceToDepth in the place of strided slices and their Concat."""

    step = "recognize_focus"

    @override
    def matches(self, node: ir.Node) -> bool:
        return node.op_type == "Concat" and not node.domain and _blocks(node) is not None

    @override
    def why_not(self, node: ir.Node) -> str | None:
        found = _blocks(node)
        assert found is not None
        if found[2] == sorted(found[2]):
            return None
        reader = sole_consumer(node.outputs[0])
        if reader is None or reader.op_type != "Conv" or reader.inputs[0] is not node.outputs[0]:
            return "its blocks are in another order, and no Conv alone reads them"
        if reader.attributes.get_int("group", 1) != 1 or constant(reader.inputs[1]) is None:
            return f"its blocks are in another order, and '{reader.name}' cannot take it"
        return None

    @override
    def rewrite(self, node: ir.Node) -> None:
        found = _blocks(node)
        assert found is not None
        source, size, order = found
        if order != sorted(order):
            reader = sole_consumer(node.outputs[0])
            assert reader is not None
            _reorder(reader, order)
        node.op_type = "SpaceToDepth"
        node.attributes.clear()
        node.attributes["blocksize"] = ir.AttrInt64("blocksize", size)
        node.resize_inputs(1)
        node.replace_input_with(0, source)


def _reorder(reader: ir.Node, order: Sequence[int]) -> None:
    """Let a Conv read blocks in sorted order that it used to read in `order`."""
    weight = constant(reader.inputs[1])
    assert weight is not None
    blocks = weight.reshape(weight.shape[0], len(order), -1, *weight.shape[2:])
    set_constant(reader, 1, blocks[:, np.argsort(order)].reshape(weight.shape), "weight")

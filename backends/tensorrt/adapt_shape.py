"""Operators whose arguments moved between attributes and inputs, or changed their meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.backends.tensorrt.adapt_windows import ceil, clip, pad, resize
from qconvert.backends.tensorrt.lowering import (
    add_constant,
    expand,
    given,
    integers,
    rank,
    truncate,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.backends.tensorrt.lowering import Adapter

__all__ = ["SHAPES"]


def _reduce(node: ir.Node, opset: int) -> str | None:
    """`axes` from an input to an attribute; without axes everything is reduced."""
    del opset
    given_axes, axes = given(node, 1), integers(given(node, 1))
    if given_axes is not None and axes is None:
        return "its axes are computed at run time"
    noop = node.attributes.get_int("noop_with_empty_axes", 0)
    if not axes and noop:
        return "it reduces nothing"
    node.attributes.pop("noop_with_empty_axes", None)
    truncate(node, 1)
    ranks = rank(node.inputs[0])
    if axes and ranks is not None:
        node.attributes["axes"] = ir.AttrInt64s("axes", [axis % ranks for axis in axes])
    return None


def _squeeze(node: ir.Node, opset: int) -> str | None:
    """`axes` from an input to an attribute, counted from the front."""
    del opset
    value, axes = given(node, 1), integers(given(node, 1))
    if value is not None and axes is None:
        return "its axes are computed at run time"
    truncate(node, 1)
    output = rank(node.outputs[0]) if node.op_type == "Unsqueeze" else rank(node.inputs[0])
    if axes is not None and output is None:
        return "the rank of its input is not known"
    if axes is not None and output is not None:
        node.attributes["axes"] = ir.AttrInt64s("axes", sorted(axis % output for axis in axes))
    return None


def _split(node: ir.Node, opset: int) -> str | None:
    """`split` as sizes: an input from opset 13 on, an attribute before."""
    axis = node.attributes.get_int("axis", 0)
    sizes = integers(given(node, 1))
    if given(node, 1) is not None and sizes is None:
        return "its sizes are computed at run time"
    if sizes is None:
        shapes = [value.shape for value in node.outputs]
        if any(shape is None or not isinstance(shape[axis], int) for shape in shapes):
            return "the sizes of its parts are not known"
        sizes = [int(shape[axis]) for shape in shapes if shape is not None]  # type: ignore[arg-type]  # asked above
    node.attributes.pop("num_outputs", None)
    truncate(node, 1)
    if opset >= 13:
        node.resize_inputs(2)
        node.replace_input_with(1, add_constant(node, "split", np.asarray(sizes, np.int64)))
    else:
        node.attributes["split"] = ir.AttrInt64s("split", sizes)
    return None


def _slice(node: ir.Node, opset: int) -> str | None:
    """Bounds from inputs to attributes."""
    del opset
    bounds = [integers(given(node, index)) for index in (1, 2)]
    axes, steps = integers(given(node, 3)), integers(given(node, 4))
    if None in bounds or any(
        given(node, index) is not None and found is None for index, found in ((3, axes), (4, steps))
    ):
        return "its bounds are computed at run time"
    if steps is not None and any(step != 1 for step in steps):
        return f"it has steps {steps}"
    ranks = rank(node.inputs[0])
    truncate(node, 1)
    for name, values in zip(("starts", "ends"), bounds, strict=True):
        node.attributes[name] = ir.AttrInt64s(name, values or [])
    if axes is not None and ranks is not None:
        node.attributes["axes"] = ir.AttrInt64s("axes", [axis % ranks for axis in axes])
    return None


def _softmax(node: ir.Node, opset: int) -> str | None:
    """Before opset 13 it runs over everything from `axis` on: the axis has to be the last."""
    del opset
    x, output = node.inputs[0], node.outputs[0]
    if x is None or x.shape is None:
        return "the shape of its input is not known"
    shape = [int(dim) for dim in x.shape.numpy()]
    axis = node.attributes.get_int("axis", -1) % len(shape)
    if all(dim == 1 for dim in shape[axis + 1 :]):
        node.attributes["axis"] = ir.AttrInt64("axis", axis)
        return None
    order = [*(index for index in range(len(shape)) if index != axis), axis]
    back = [order.index(index) for index in range(len(shape))]
    tape = ir.tape.Tape()
    moved = tape.op("Transpose", [x], {"perm": order})
    done = tape.op(node.op_type, [moved], {"axis": len(shape) - 1})
    for value in (moved, done):
        value.shape, value.type = ir.Shape([shape[index] for index in order]), output.type
    expand(node, tape, tape.op("Transpose", [done], {"perm": back}))
    return None


def _top_k(node: ir.Node, opset: int) -> str | None:
    """`k` from an input to an attribute."""
    del opset
    count = integers(given(node, 1))
    if count is None:
        return "its K is computed at run time"
    truncate(node, 1)
    node.attributes["k"] = ir.AttrInt64("k", count[0])
    return None


def _gemm(node: ir.Node, opset: int) -> str | None:
    """Without a bias, a bias of 0."""
    del opset
    if given(node, 2) is None:
        node.resize_inputs(3)
        node.replace_input_with(2, add_constant(node, "bias", np.zeros(1, np.float32)))
    return None


def _dropout(node: ir.Node, opset: int) -> str | None:
    """Nothing is dropped at inference."""
    del opset
    truncate(node, 1)
    return None


def _grid_sample(node: ir.Node, opset: int) -> str | None:
    """The modes had other names."""
    del opset
    older = {"linear": "bilinear", "cubic": "bicubic"}
    mode = node.attributes.get_string("mode", "linear")
    node.attributes["mode"] = ir.AttrString("mode", older.get(mode, mode))
    return None


_REDUCTIONS: Final = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSumSquare",
)  # fmt: skip

SHAPES: Final[Mapping[str, tuple[int, Adapter]]] = {
    **dict.fromkeys(_REDUCTIONS, (18, _reduce)),
    "AveragePool": (10, ceil),
    "Clip": (11, clip),
    "Dropout": (12, _dropout),
    "Gemm": (11, _gemm),
    "GridSample": (20, _grid_sample),
    "Hardmax": (13, _softmax),
    "LogSoftmax": (13, _softmax),
    "MaxPool": (10, ceil),
    "Pad": (18, pad),
    "ReduceSum": (13, _reduce),
    "Resize": (18, resize),
    "Slice": (10, _slice),
    "Softmax": (13, _softmax),
    "Split": (18, _split),
    "Squeeze": (13, _squeeze),
    "TopK": (10, _top_k),
    "Unsqueeze": (13, _squeeze),
}
"""Operator → (the opset that changed its form, what gives it the older one)."""

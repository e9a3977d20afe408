"""Pad, Clip, Resize and pooling in older opsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.backends.tensorrt.lowering import (
    add_constant,
    drop_defaults,
    given,
    integers,
    rank,
    truncate,
)
from qconvert.graph import constant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    F64 = npt.NDArray[np.float64]

__all__ = ["ceil", "clip", "pad", "resize"]

_ROUNDINGS: Final[Mapping[str, Callable[[F64], F64]]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
}
"""How a Resize rounds a place to the nearest value."""


def clip(node: ir.Node, opset: int) -> str | None:
    """Bounds from inputs to attributes."""
    del opset
    for index, name in ((2, "max"), (1, "min")):
        value, bound = given(node, index), constant(given(node, index))
        if value is not None and bound is None:
            return "its bounds are computed at run time"
        if bound is not None:
            node.attributes[name] = ir.AttrFloat32(name, float(bound.reshape(-1)[0]))
    truncate(node, 1)
    return None


def pad(node: ir.Node, opset: int) -> str | None:
    """Pads of every axis in place of `axes`; before opset 11, attributes."""
    ranks = rank(node.inputs[0])
    amounts, axes = integers(given(node, 1)), integers(given(node, 3))
    if amounts is None or (given(node, 3) is not None and axes is None) or ranks is None:
        return "its pads are computed at run time"
    mode = node.attributes.get_string("mode", "constant")
    if mode == "wrap" and opset < 19:
        return "it wraps around"
    if axes is not None:
        full, half = [0] * (2 * ranks), len(axes)
        for index, axis in enumerate(axes):
            full[axis % ranks] = amounts[index]
            full[ranks + axis % ranks] = amounts[half + index]
        amounts = full
    fill, filled = given(node, 2), constant(given(node, 2))
    if fill is not None and filled is None:
        return "its fill is computed at run time"
    truncate(node, 3 if opset >= 11 else 1)
    if opset >= 11:
        node.replace_input_with(1, add_constant(node, "pads", np.asarray(amounts, np.int64)))
        return None
    node.attributes["pads"] = ir.AttrInt64s("pads", amounts)
    if filled is not None and filled.any():
        node.attributes["value"] = ir.AttrFloat32("value", float(filled.reshape(-1)[0]))
    return None


def ceil(node: ir.Node, opset: int) -> str | None:
    """Round the output size up by padding the end, which changes no maximum and no average."""
    del opset
    x, output = node.inputs[0], node.outputs[0]
    if not node.attributes.get_int("ceil_mode", 0):
        node.attributes.pop("ceil_mode", None)
        return None
    if node.attributes.get_int("count_include_pad", 0):
        return "it rounds its size up and counts padding"
    if x is None or x.shape is None or output.shape is None:
        return "the shape of its input is not known"
    del node.attributes["ceil_mode"]
    kernel = node.attributes["kernel_shape"].as_ints()
    axes = len(kernel)
    strides = node.attributes.get_ints("strides", [1] * axes)
    pads = list(node.attributes.get_ints("pads", [0] * (2 * axes)))
    for axis in range(axes):
        size, wanted = int(x.shape[axis + 2]), int(output.shape[axis + 2])  # type: ignore[arg-type]  # every size is known
        covered = (wanted - 1) * strides[axis] + kernel[axis]
        pads[axes + axis] = max(pads[axes + axis], covered - size - pads[axis])
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    return None


def _scales(node: ir.Node) -> npt.NDArray[np.float32] | None:
    """By how much a Resize enlarges each axis, from its scales or from shapes."""
    found = constant(given(node, 2))
    if found is not None and found.size:
        return found.astype(np.float32)
    x, output = node.inputs[0], node.outputs[0]
    if x is None or x.shape is None or output.shape is None:
        return None
    return np.asarray(output.shape.numpy() / np.asarray(x.shape.numpy()), np.float32)


def resize(node: ir.Node, opset: int) -> str | None:
    """Without axes and antialiasing; before opset 11 nearest by whole factors alone."""
    reason = drop_defaults(
        node, [("antialias", 0), ("keep_aspect_ratio_policy", "stretch"), ("axes", None)]
    )
    if reason is not None:
        return reason
    if opset >= 13:
        return None
    if opset >= 11:
        _fill_empty(node)
        return None
    scales = _scales(node)
    mode = node.attributes.get_string("mode", "nearest")
    if scales is None or mode != "nearest" or not _repeats(node, scales):
        return "only enlarging by whole factors, to the nearest value, has an older form"
    truncate(node, 1)
    node.attributes.clear()
    node.attributes["mode"] = ir.AttrString("mode", "nearest")
    if opset < 10:
        node.op_type = "Upsample"
    if opset < 9:
        node.attributes["scales"] = ir.AttrFloat32s("scales", scales.tolist())
        return None
    node.resize_inputs(2)
    node.replace_input_with(1, add_constant(node, "scales", scales))
    return None


def _repeats(node: ir.Node, scales: npt.NDArray[np.float32]) -> bool:
    """Whether a Resize to the nearest value writes each value a whole number of times in a row."""
    if (scales != np.rint(scales)).any() or (scales < 1).any():
        return False
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    nearest = node.attributes.get_string("nearest_mode", "round_prefer_floor")
    for factor in {int(scale) for scale in scales}:
        steps = np.arange(factor)
        if mode == "asymmetric":
            places = steps / factor
        elif mode in {"half_pixel", "pytorch_half_pixel"}:
            places = (steps + 0.5) / factor - 0.5
        else:
            return False
        rounded = _ROUNDINGS[nearest](places)
        # Places before the first value count as the first.
        if np.maximum(rounded, 0).any() or (mode != "asymmetric" and rounded.min() < 0):
            return False
    return True


def _fill_empty(node: ir.Node) -> None:
    """Opset 11 has no optional inputs in the middle: empty tensors stand there."""
    for index, part in ((1, "roi"), (2, "scales")):
        if given(node, index) is None:
            node.resize_inputs(max(len(node.inputs), index + 1))
            node.replace_input_with(index, add_constant(node, part, np.zeros(0, np.float32)))

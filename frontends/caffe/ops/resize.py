"""Layers of the forks that change the size of planes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from qconvert.frontends.caffe.convert import Context, Shape, converts

if TYPE_CHECKING:
    from collections.abc import Sequence


def _planes(ctx: Context) -> Shape:
    """The bottom's shape [N, C, H, W]."""
    shape = ctx.shape()
    if len(shape) != 4:
        raise ctx.error(f"{ctx.layer.type} works on 4 axes, its bottom is {list(shape)}")
    return shape


@converts("Interp")
def _interp(ctx: Context) -> Sequence[ir.Value]:
    """Interp, bilinear with corners on corners → Resize (DeepLab's and PSPNet's layer).

    The size is `height` and `width`, or follows from `shrink_factor` and `zoom_factor`, or is that
    of the second bottom. Negative pads cut the image first (interp_layer.cpp, Reshape).
    """
    ctx.expect_inputs(1, 2)
    shape, param = _planes(ctx), ctx.params.interp_param
    if param.pad_beg > 0 or param.pad_end > 0:
        raise ctx.error("Interp pads", "pad_beg and pad_end are at most 0: they only cut")
    x, size = (
        ctx.x,
        (shape[2] + param.pad_beg + param.pad_end, shape[3] + param.pad_beg + param.pad_end),
    )
    ctx.checked((*shape[:2], *size))
    if size != shape[2:]:
        starts = ctx.integers("starts", [-param.pad_beg] * 2)
        ends = ctx.integers("ends", [dim + param.pad_end for dim in shape[2:]])
        axes = ctx.integers("axes", [2, 3])
        x = ctx.op("Slice", [x, starts, ends, axes], shape=(*shape[:2], *size), part="cut")
    top = ctx.checked((*shape[:2], *_interp_size(ctx, (size[0], size[1]))))
    attributes = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    sizes = ctx.integers("sizes", top)
    return [ctx.op("Resize", [x, None, None, sizes], attributes, shape=top)]


def _interp_size(ctx: Context, size: tuple[int, int]) -> tuple[int, int]:
    """The size of the result."""
    param = ctx.params.interp_param
    if len(ctx.inputs) == 2:
        other = ctx.shape(1)
        if len(other) != 4:
            raise ctx.error(f"Interp takes the size of a bottom of shape {list(other)}")
        return other[2], other[3]
    if param.HasField("height") and param.HasField("width"):
        return param.height, param.width
    if not (param.HasField("shrink_factor") or param.HasField("zoom_factor")):
        raise ctx.error("Interp has no size", "it has height and width, or a factor")
    if param.shrink_factor < 1 or param.zoom_factor < 1:
        raise ctx.error("Interp has a factor below 1")
    height, width = ((dim - 1) // param.shrink_factor + 1 for dim in size)
    zoom = param.zoom_factor - 1
    return height + (height - 1) * zoom, width + (width - 1) * zoom


@converts("Upsample")
def _upsample(ctx: Context) -> Sequence[ir.Value]:
    """Upsample: nearest by `scale` (YOLOv3 ports); with a pooling mask, max-unpooling (SegNet)."""
    ctx.expect_inputs(1, 2)
    if len(ctx.inputs) == 2:
        return _unpool(ctx)
    param = ctx.params.upsample_param
    return _nearest(ctx, param.scale_h or param.scale, param.scale_w or param.scale)


@converts("NNUpsample")
def _nn_upsample(ctx: Context) -> Sequence[ir.Value]:
    """NNUpsample → Resize, nearest (PPQ)."""
    ctx.expect_inputs(1)
    factor = ctx.params.nn_upsample_param.resize
    return _nearest(ctx, factor, factor)


def _nearest(ctx: Context, height: int, width: int) -> Sequence[ir.Value]:
    """Every pixel `height` x `width` times."""
    shape = _planes(ctx)
    top = ctx.checked((*shape[:2], shape[2] * height, shape[3] * width))
    scales = ctx.constant("scales", np.array([1, 1, height, width], np.float32))
    attributes = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return [ctx.op("Resize", [ctx.x, None, scales], attributes, shape=top)]


def _unpool(ctx: Context) -> Sequence[ir.Value]:
    """Put every number where the mask says in its plane of zeros → ScatterElements.

    SegNet's upsample_layer.cpp; the mask holds indices within the plane of the result.
    """
    shape, param = _planes(ctx), ctx.params.upsample_param
    if ctx.shape(1) != shape:
        raise ctx.error(f"Upsample has a mask of shape {list(ctx.shape(1))}", f"for {list(shape)}")
    height = param.upsample_h or shape[2] * (param.scale_h or param.scale) - param.pad_out_h
    width = param.upsample_w or shape[3] * (param.scale_w or param.scale) - param.pad_out_w
    top = ctx.checked((*shape[:2], height, width))
    flat, planes = (*shape[:2], shape[2] * shape[3]), (*shape[:2], height * width)
    updates = ctx.reshape(ctx.x, flat, "updates")
    mask = ctx.cast(ctx.reshape(ctx.inputs[1], flat, "mask"), ir.DataType.INT64, "indices")
    # Zeros of the result's size, without an initializer of that size.
    zeros = ctx.op(
        "Expand",
        [ctx.constant("zero", np.zeros((1, 1, 1), np.float32)), ctx.integers("planes", planes)],
        shape=planes,
        part="zeros",
    )
    filled = ctx.op(
        "ScatterElements", [zeros, mask, updates], {"axis": 2}, shape=planes, part="scatter"
    )
    return [ctx.reshape(filled, top)]

"""[reorg], [reorg3d], and layers that hand their input on: losses and the like."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qconvert.frontends.darknet.layer import check_size
from qconvert.frontends.darknet.ops import converts
from qconvert.graph import shape_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.frontends.darknet.layer import Layer

__all__: list[str] = []


@converts("dropout", ignores="probability dropblock dropblock_size_rel dropblock_size_abs")
def _dropout(layer: Layer) -> ir.Value:
    """[dropout]: nothing happens after training."""
    return layer.x


@converts("cost", ignores="type scale ratio")
def _cost(layer: Layer) -> ir.Value:
    """[cost]: the loss; Darknet's prediction is what enters it (get_network_output)."""
    return layer.x


@converts(
    "contrastive",
    ignores="classes temperature yolo_layer cls_normalizer max_delta contrastive_neg_max",
)
def _contrastive(layer: Layer) -> ir.Value:
    """[contrastive]: a second loss in AlexeyAB's Darknet; nothing reads its output."""
    return layer.x


@converts("empty", "silence")
def _empty(layer: Layer) -> ir.Value:
    """[empty]: hands its input on."""
    return layer.x


@converts("reorg")
def _reorg(layer: Layer) -> ir.Value:
    """[reorg]: pixels to channels in Darknet's own order (reorg_cpu in src/blas.c).

    It reads the [C, H, W] numbers as [C / s², H * s, W * s], moves each s x s block into channels,
    and writes the result down as [C * s², H / s, W / s]. `reverse=1` is the other way round.
    pjreddie's `flatten=1` turns [C, H * W] into [H * W, C], and `extra=N` appends N zeros.
    """
    section = layer.section
    x = layer.image()
    _, channels, height, width = shape_of(x)
    stride = section.integer("stride", 1, low=1, high=1 << 14)
    reverse = bool(section.integer("reverse", 0))
    flatten = bool(section.integer("flatten", 0))
    extra = section.integer("extra", 0, low=0)
    if extra and not flatten:
        return _extra(layer, extra)
    square = stride * stride
    out = _reorganized(layer, (channels, height, width), stride, reverse=reverse)
    if flatten:
        sides = [height * width, channels] if reverse else [channels, height * width]
        table = layer.reshape(x, sides, "table")
        turned = layer.op("Transpose", [table], sides[::-1], {"perm": [1, 0]}, part="turned")
        return layer.reshape(turned, out, "image")
    if channels % square:
        raise section.wrong(
            f"stride={stride} does not divide {channels} channels",
            f"layer '{layer.name}' needs a multiple of {square}",
            key="stride",
        )
    if reverse:
        small = (1, channels // square, height * stride, width * stride)
        return layer.op("DepthToSpace", [x], small, {"blocksize": stride, "mode": "DCR"})
    read_as = layer.reshape(x, (1, channels // square, height * stride, width * stride), "read")
    blocks = layer.op("SpaceToDepth", [read_as], shape_of(x), {"blocksize": stride})
    return layer.reshape(blocks, out, "write")


def _extra(layer: Layer, extra: int) -> ir.Value:
    """All numbers as a vector, and zeros behind."""
    flat = layer.vector()
    shape = (1, shape_of(flat)[1] + extra)
    pads = layer.constant("pads", np.array([0, 0, 0, extra], dtype=np.int64))
    return layer.op("Pad", [flat, pads], shape)


@converts("reorg3d")
def _reorg3d(layer: Layer) -> ir.Value:
    """[reorg3d] → SpaceToDepth, or DepthToSpace with reverse=1 (reorg_cpu in AlexeyAB's blas.c)."""
    x = layer.image()
    stride = layer.section.integer("stride", 1, low=1, high=1 << 14)
    reverse = bool(layer.section.integer("reverse", 0))
    _, channels, height, width = shape_of(x)
    out = _reorganized(layer, (channels, height, width), stride, reverse=reverse)
    if reverse:
        return layer.op("DepthToSpace", [x], out, {"blocksize": stride, "mode": "DCR"})
    return layer.op("SpaceToDepth", [x], out, {"blocksize": stride})


def _reorganized(
    layer: Layer, shape: tuple[int, int, int], stride: int, *, reverse: bool
) -> tuple[int, int, int, int]:
    """The shape after reorganization.

    Raises:
        ModelFormatError: If the stride does not divide what it has to.
    """
    channels, height, width = shape
    square = stride * stride
    if reverse:
        out = (1, channels // square, height * stride, width * stride)
    else:
        out = (1, channels * square, height // stride, width // stride)
    if math.prod(out) != math.prod(shape):
        raise layer.section.wrong(
            f"stride={stride} does not divide {channels} channels of {width} x {height}",
            f"layer '{layer.name}'",
            key="stride",
        )
    check_size(out, f"layer '{layer.name}'", layer.section.place)
    return out

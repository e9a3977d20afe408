"""Pooling, with Caffe's idea of which windows exist and what an average divides by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.frontends.caffe import caffe_pb2 as pb
from qconvert.frontends.caffe.convert import Context, converts
from qconvert.graph import shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qconvert.frontends.caffe.convert import Attribute

_LOWEST: Final = float(np.finfo(np.float32).min)
_LARGEST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of a pooling on [h, w].

    Attributes:
        kernel: Size of a window.
        stride: Distance of windows.
        pad: On both sides.
        ceil: Whether a last window that is not full counts.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    ceil: bool = True

    def sizes(self, spatial: tuple[int, int]) -> tuple[int, int]:
        """How many windows there are (pooling_layer.cpp, Reshape).

        With padding, the last window must begin inside the image or the padding before it; without,
        it may begin anywhere that rounding up allows.
        """
        counts = []
        for size, kernel, stride, pad in zip(
            spatial, self.kernel, self.stride, self.pad, strict=True
        ):
            span = size + 2 * pad - kernel
            count = (-(-span // stride) if self.ceil else span // stride) + 1
            if any(self.pad) and (count - 1) * stride >= size + pad:
                count -= 1
            counts.append(count)
        return counts[0], counts[1]

    def overhang(self, spatial: tuple[int, int]) -> tuple[int, int]:
        """Padding at the end that makes exactly `sizes` full windows; at least 0."""
        rows = zip(self.sizes(spatial), spatial, self.kernel, self.stride, self.pad, strict=True)
        first, second = (
            max((count - 1) * stride + kernel - size - pad, 0)
            for count, size, kernel, stride, pad in rows
        )
        return first, second


@converts("Pooling")
def _pooling(ctx: Context) -> Sequence[ir.Value]:
    """Pooling → MaxPool, AveragePool or their global forms; a second top of MAX is the mask."""
    ctx.expect_inputs(1)
    if len(ctx.shape()) != 4:
        raise ctx.error(f"Pooling works on 4 axes, its bottom has {len(ctx.shape())}")
    param = ctx.params.pooling_param
    if param.pool == pb.Pooling.STOCHASTIC:
        raise ctx.unsupported(
            "stochastic pooling", "Caffe itself has it on the GPU only; use MAX or AVE"
        )
    average = param.pool == pb.Pooling.AVE
    if param.global_pooling:
        if average or len(ctx.layer.tops) == 1:
            kind = "GlobalAveragePool" if average else "GlobalMaxPool"
            return [ctx.op(kind, [ctx.x], shape=(*ctx.shape()[:2], 1, 1))]
        height, width = ctx.shape()[2:]
        window = Window((height, width), (1, 1), (0, 0))
    else:
        window = _window(ctx)
    if average:
        return [average_pool(ctx, ctx.x, window)]
    if len(ctx.layer.tops) > 1:
        return _max_and_mask(ctx, window)
    return [max_pool(ctx, ctx.x, window)]


def _window(ctx: Context) -> Window:
    """The geometry parameters of pooling_param."""
    param = ctx.params.pooling_param
    ceil = param.ceil_mode
    if param.HasField("round_mode"):
        ceil = param.round_mode == pb.Pooling.CEIL
    window = Window(
        kernel=_pair(ctx, "kernel_size", "kernel"),
        stride=_pair(ctx, "stride", "stride"),
        pad=_pair(ctx, "pad", "pad"),
        ceil=ceil,
    )
    numbers = (*window.kernel, *window.stride)
    if not all(1 <= number <= _LARGEST for number in numbers):
        raise ctx.error(
            f"Pooling has kernel {window.kernel} and stride {window.stride}",
            "both are at least 1",
        )
    if any(pad >= kernel for pad, kernel in zip(window.pad, window.kernel, strict=True)):
        raise ctx.error(
            f"Pooling has pad {window.pad} and kernel {window.kernel}",
            "the pad is smaller than the kernel",
        )
    spatial = zip(ctx.shape()[2:], window.pad, window.kernel, strict=True)
    if any(size + 2 * pad < kernel for size, pad, kernel in spatial):
        raise ctx.error(
            f"Pooling has kernel {window.kernel}", f"its bottom is only {ctx.shape()[2:]}"
        )
    return window


def _pair(ctx: Context, both: str, key: str) -> tuple[int, int]:
    """One number for both axes, or _h and _w."""
    param = ctx.params.pooling_param
    if param.HasField(f"{key}_h") or param.HasField(f"{key}_w"):
        common = getattr(param, both) if key == "stride" else 0
        return (
            getattr(param, f"{key}_h") if param.HasField(f"{key}_h") else common,
            getattr(param, f"{key}_w") if param.HasField(f"{key}_w") else common,
        )
    return getattr(param, both), getattr(param, both)


def _spatial(x: ir.Value) -> tuple[int, int]:
    """Height and width of a value."""
    return shape_of(x)[2], shape_of(x)[3]


def _attributes(window: Window, begin: Sequence[int], end: Sequence[int]) -> dict[str, Attribute]:
    return {
        "kernel_shape": list(window.kernel),
        "strides": list(window.stride),
        "pads": [*begin, *end],
    }


def _padded(
    ctx: Context, x: ir.Value, ends: tuple[Sequence[int], Sequence[int]], fill: float, part: str
) -> ir.Value:
    """Write an explicit Pad of the last two axes."""
    begin, end = ends
    spatial = _spatial(x)
    shape = [
        *ctx.shape()[:2],
        *(size + b + e for size, b, e in zip(spatial, begin, end, strict=True)),
    ]
    prefix = f"{part}/" if part else ""
    pads = ctx.integers(f"{prefix}pads", [0, 0, *begin, 0, 0, *end])
    value = ctx.scalar(f"{prefix}fill", fill)
    return ctx.op("Pad", [x, pads, value], shape=shape, part=f"{prefix}pad")


def max_pool(ctx: Context, x: ir.Value, window: Window, part: str = "") -> ir.Value:
    """MaxPool over `x` [N, C, H, W].

    A window wholly outside of the image (stride above kernel, rounding up) gives the lowest float,
    as in Caffe; ONNX forbids padding that makes such windows, so it is written as a Pad.
    """
    spatial = _spatial(x)
    shape = (*ctx.shape()[:2], *window.sizes(spatial))
    begin: Sequence[int] = window.pad
    end: Sequence[int] = window.overhang(spatial)
    if any(e >= k for e, k in zip(end, window.kernel, strict=True)):
        x = _padded(ctx, x, (begin, end), _LOWEST, part)
        begin = end = (0, 0)
    return ctx.op("MaxPool", [x], _attributes(window, begin, end), shape=shape, part=part)


def average_pool(ctx: Context, x: ir.Value, window: Window, part: str = "") -> ir.Value:
    """AveragePool over `x` [N, C, H, W].

    Caffe divides by the part of the window inside the *padded* image: padding counts, what
    rounding up adds beyond it does not (pooling_layer.cpp, Forward_cpu, AVE).
    """
    spatial = _spatial(x)
    shape = (*ctx.shape()[:2], *window.sizes(spatial))
    begin: Sequence[int] = window.pad
    end: Sequence[int] = window.overhang(spatial)
    include = any(begin)
    beyond = tuple(max(e - b, 0) for e, b in zip(end, begin, strict=True))
    if include and any(beyond):
        x = _padded(ctx, x, (begin, begin), 0.0, part)
        begin, end, include = (0, 0), beyond, False
    if any(e >= k for e, k in zip(end, window.kernel, strict=True)):
        raise ctx.unsupported(
            "an average over windows that lie outside of the image",
            "the stride is larger than the kernel and rounding up adds an empty window",
            "set round_mode: FLOOR, or a kernel as large as the stride",
        )
    attributes = _attributes(window, begin, end)
    attributes["count_include_pad"] = int(include)
    return ctx.op("AveragePool", [x], attributes, shape=shape, part=part)


def _max_and_mask(ctx: Context, window: Window) -> Sequence[ir.Value]:
    """MaxPool and, as floats, where in its plane each maximum stood."""
    spatial = _spatial(ctx.x)
    shape = (*ctx.shape()[:2], *window.sizes(spatial))
    end = window.overhang(spatial)
    if any(e >= k for e, k in zip(end, window.kernel, strict=True)):
        raise ctx.unsupported("a pooling mask with windows that lie outside of the image")
    attributes = _attributes(window, window.pad, end)
    pooled, places = ctx.ops("MaxPool", [ctx.x], attributes, shapes=[shape, shape])
    places.type = ir.TensorType(ir.DataType.INT64)
    plane = ctx.integers("plane", [math.prod(spatial)])
    within = ctx.op("Mod", [places, plane], shape=shape, part="mask/mod")
    within.type = ir.TensorType(ir.DataType.INT64)
    return [pooled, ctx.cast(within, ir.DataType.FLOAT, "mask")]


@converts("SPP")
def _spp(ctx: Context) -> Sequence[ir.Value]:
    """SPP, spatial pyramid pooling → a pooling and a Flatten per level, and Concat.

    Level i has 2^i bins along each axis; kernel = stride = ceil(size / bins), what is missing is
    padded on both sides (spp_layer.cpp, GetPoolingParam).
    """
    ctx.expect_inputs(1)
    param = ctx.params.spp_param
    spatial = _spatial(ctx.x) if len(ctx.shape()) == 4 else (0, 0)
    levels = param.pyramid_height
    if not 1 <= levels <= 16 or min(spatial) < 1:
        raise ctx.error(f"SPP has {levels} levels on a bottom of shape {list(ctx.shape())}")
    if param.pool == pb.Pooling.STOCHASTIC:
        raise ctx.unsupported("stochastic pooling", "Caffe itself has it on the GPU only")
    pool = average_pool if param.pool == pb.Pooling.AVE else max_pool
    rows = []
    for level in range(levels):
        window = _bins(ctx, spatial, 2**level)
        pooled = pool(ctx, ctx.x, window, f"level{level}")
        shape = (ctx.shape()[0], ctx.shape()[1] * math.prod(window.sizes(spatial)))
        part = f"level{level}/flatten" if levels > 1 else ""
        rows.append(ctx.op("Flatten", [pooled], {"axis": 1}, shape=shape, part=part))
    if levels == 1:
        return rows
    total = sum(shape_of(row)[1] for row in rows)
    return [ctx.op("Concat", rows, {"axis": 1}, shape=(ctx.shape()[0], total))]


def _bins(ctx: Context, spatial: tuple[int, int], bins: int) -> Window:
    """The pooling of one SPP level."""
    kernel = tuple(-(-size // bins) for size in spatial)
    pad = tuple((k * bins - size + 1) // 2 for k, size in zip(kernel, spatial, strict=True))
    if any(p >= k for p, k in zip(pad, kernel, strict=True)):
        raise ctx.error(
            f"SPP has {bins} bins on a bottom of {spatial[0]}x{spatial[1]}",
            "a bin would lie wholly in the padding",
        )
    return Window((kernel[0], kernel[1]), (kernel[0], kernel[1]), (pad[0], pad[1]))

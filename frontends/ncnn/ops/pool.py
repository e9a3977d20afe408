"""Pooling."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.frontends.ncnn.ops.window import Window, extents, pad, same
from qconvert.frontends.ncnn.registry import converts

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Attribute, Builder, Dims

__all__: list[str] = []

_MAX: Final = 0
_FULL, _VALID, _SAME_UPPER, _SAME_LOWER = 0, 1, 2, 3
_LOWEST: Final = -float(np.finfo(np.float32).max)


def _why_not(layer: Layer) -> str | None:
    """Kinds of pooling that do not exist."""
    if layer.int(0, 0) not in {0, 1}:
        return f"pooling type {layer.int(0, 0)} is not known"
    if layer.int(5, 0) not in {_FULL, _VALID, _SAME_UPPER, _SAME_LOWER}:
        return f"pad mode {layer.int(5, 0)} is not known"
    return None


@converts("Pooling", why_not=_why_not)
def _pooling(b: Builder, layer: Layer) -> ir.Value:
    """Max or average pooling: global (gives [c]), adaptive, or with a window; x [c, h, w].

    Source: src/layer/pooling.cpp.
    """
    x = b.as_image(b.input())
    if layer.int(4, 0):
        return _global(b, x)
    if layer.int(7, 0):
        return _adaptive(b, x)
    window = Window(extents(b, 1, 0, 2), extents(b, 2, 1, 2), (1, 1))
    begin, end, tail = _paddings(b, window, b.dims(x)[1:])
    end = (end[0] + tail[0], end[1] + tail[1])
    counts_border = bool(layer.int(6, 0))
    if layer.int(0, 0) != _MAX and not counts_border and layer.int(5, 0) >= _SAME_UPPER:
        # Only explicit paddings are left out of the count; those of SAME modes are not.
        if any(_explicit(b)[0] + _explicit(b)[1]):
            raise b.unsupported(
                "average pooling with a SAME mode and explicit paddings",
                "ncnn subtracts the wrong border from its counts",
            )
        counts_border = True
    return _windowed(b, x, window, (begin, end), counts_border=counts_border)


def _explicit(b: Builder) -> tuple[Dims, Dims]:
    """Paddings as given: (top, left), (bottom, right)."""
    left = b.layer.int(3, 0)
    top = b.layer.int(13, left)
    return (top, left), (b.layer.int(15, top), b.layer.int(14, left))


def _paddings(b: Builder, window: Window, size: Dims) -> tuple[Dims, Dims, Dims]:
    """Paddings before and behind, and the tail that mode 0 adds for the last window."""
    mode = b.layer.int(5, 0)
    if mode in {_SAME_UPPER, _SAME_LOWER}:
        return *same(window, size, lower=mode == _SAME_LOWER), (0, 0)
    begin, end = _explicit(b)
    if min(*begin, *end) < 0:
        raise b.bad(f"'{b.layer.name}' has a negative padding: {[*begin, *end]}")
    if mode == _VALID:
        return begin, end, (0, 0)
    rows = zip(size, begin, end, window.kernel, window.strides, strict=True)
    # C's remainder has the sign of its dividend.
    rests = [(int(math.fmod(n + p + q - k, s)), s) for n, p, q, k, s in rows]
    tail = tuple(stride - rest if rest else 0 for rest, stride in rests)
    return begin, end, tail


def _windowed(
    b: Builder,
    x: ir.Value,
    window: Window,
    borders: tuple[Dims, Dims],
    *,
    counts_border: bool,
) -> ir.Value:
    """MaxPool or AveragePool; a border as wide as the kernel becomes a Pad of its own."""
    begin, end = borders
    maximum = b.layer.int(0, 0) == _MAX
    out = (b.dims(x)[0], *window.out(b.dims(x)[1:], begin, end))
    reach = [max(p, q) - k for p, q, k in zip(begin, end, window.kernel, strict=True)]
    if max(reach) >= 0 and not maximum and not counts_border:
        return _average_of_inside(b, x, window, borders, out)
    if max(reach) >= 0:
        x = pad(b, x, begin, end, _LOWEST if maximum else 0.0)
        begin = end = (0, 0)
    attributes: dict[str, Attribute] = {
        "kernel_shape": window.kernel,
        "strides": window.strides,
        "pads": (*begin, *end),
    }
    if maximum:
        return b.emit("MaxPool", [x], out, attributes)
    if any(begin) or any(end):
        attributes["count_include_pad"] = int(counts_border)
    return b.emit("AveragePool", [x], out, attributes)


def _average_of_inside(
    b: Builder, x: ir.Value, window: Window, borders: tuple[Dims, Dims], out: Dims
) -> ir.Value:
    """Average without the border, where the border is too wide for ONNX's own way.

    The sum over a window comes from an average with the border, the count from geometry. A
    window that sees nothing but border has no average.
    """
    counts = []
    for axis, size in enumerate(b.dims(x)[1:]):
        starts = np.arange(out[axis + 1]) * window.strides[axis] - borders[0][axis]
        stops = starts + window.kernel[axis]
        counts.append(np.minimum(stops, size) - np.maximum(starts, 0))
    if min(int(count.min()) for count in counts) < 1:
        raise b.bad(f"a window of '{b.layer.name}' lies in the padding alone", "it has no average")
    padded = pad(b, x, *borders, 0.0)
    attributes: dict[str, Attribute] = {"kernel_shape": window.kernel, "strides": window.strides}
    mean = b.emit("AveragePool", [padded], out, attributes)
    factor = math.prod(window.kernel) / np.outer(*counts)
    return b.emit("Mul", [mean, b.constant(factor.astype(np.float32), "counts")], out, part="count")


def _global(b: Builder, x: ir.Value) -> ir.Value:
    """One number a channel, as a vector [c]."""
    channels = b.dims(x)[0]
    kind = "GlobalMaxPool" if b.layer.int(0, 0) == _MAX else "GlobalAveragePool"
    pooled = b.emit(kind, [x], (channels, 1, 1))
    return b.emit("Flatten", [pooled], (channels,), {"axis": 1}, part="flatten")


def _adaptive(b: Builder, x: ir.Value) -> ir.Value:
    """Pooling to a given size: every output has the window floor(i n / m) to ceil((i+1) n / m).

    Where all windows have one size and step this is ordinary pooling; else the windows along each
    axis become slices of their own, one axis after the other.
    """
    channels, *size = b.dims(x)
    width = b.layer.int(8, 0)
    height = b.layer.int(18, width)
    wanted = [n if m == -233 else m for n, m in zip(size, (height, width), strict=True)]
    b.check((channels, *wanted))
    if wanted == size:
        return b.emit("Identity", [x], (channels, *size))
    if all(n % m == 0 for n, m in zip(size, wanted, strict=True)):
        steps = tuple(n // m for n, m in zip(size, wanted, strict=True))
        return _windowed(b, x, Window(steps, steps, (1, 1)), ((0, 0), (0, 0)), counts_border=False)
    for axis in (2, 3):
        x = _pool_axis(b, x, axis, wanted[axis - 2])
    return x


def _pool_axis(b: Builder, x: ir.Value, axis: int, count: int) -> ir.Value:
    """Adaptive pooling of one axis of [1, c, h, w] to `count`."""
    dims = b.dims(x)
    size = dims[axis - 1]
    if count > 4096:
        raise b.unsupported(f"adaptive pooling to {count} windows of uneven size")
    reduce = "ReduceMax" if b.layer.int(0, 0) == _MAX else "ReduceMean"
    name = "hw"[axis - 2]
    axes = b.ints([axis], f"{name}_axis")
    pieces = []
    for index in range(count):
        start, stop = size * index // count, -(-size * (index + 1) // count)
        bounds = [b.ints([at], f"{name}_{end}") for at, end in ((start, "start"), (stop, "stop"))]
        cut = tuple(stop - start if i == axis - 1 else n for i, n in enumerate(dims))
        piece = b.emit("Slice", [x, *bounds, axes], cut, part=f"{name}_slice")
        one = tuple(1 if i == axis - 1 else n for i, n in enumerate(dims))
        pieces.append(b.emit(reduce, [piece, axes], one, part=f"{name}_reduce"))
    out = tuple(count if i == axis - 1 else n for i, n in enumerate(dims))
    return b.emit("Concat", pieces, out, {"axis": axis}, part=f"{name}_concat")

"""Pooling."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from qconvert.frontends.ncnn.ops.window import Window, extents, same
from qconvert.frontends.ncnn.registry import converts

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Attribute, Builder, Dims

__all__: list[str] = []

_MAX: Final = 0
_FULL, _VALID, _SAME_UPPER, _SAME_LOWER = 0, 1, 2, 3


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
        return *same(b, window, size, lower=mode == _SAME_LOWER), (0, 0)
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
    """MaxPool or AveragePool.

    Raises:
        UnsupportedError: If a window lies in the padding alone: ncnn gives -FLT_MAX or 0 / 0.
    """
    begin, end = borders
    size = b.dims(x)[1:]
    out = window.out(size, begin, end)
    end = tuple(
        map(_reached, size, out, zip(begin, end, strict=True), window.kernel, window.strides)
    )
    if any(max(p, q) >= k for p, q, k in zip(begin, end, window.kernel, strict=True)):
        raise b.unsupported(
            f"a padding of {[*begin, *end]} around a window of {list(window.kernel)}",
            "a window would see nothing but padding",
        )
    attributes: dict[str, Attribute] = {
        "kernel_shape": window.kernel,
        "strides": window.strides,
        "pads": (*begin, *end),
    }
    dims = (b.dims(x)[0], *out)
    if b.layer.int(0, 0) == _MAX:
        return b.emit("MaxPool", [x], dims, attributes)
    if any(begin) or any(end):
        attributes["count_include_pad"] = int(counts_border)
    return b.emit("AveragePool", [x], dims, attributes)


def _reached(size: int, out: int, pads: tuple[int, int], kernel: int, stride: int) -> int:
    """The padding behind, without what no window reaches if it is as wide as the window."""
    begin, end = pads
    if end < kernel:
        return end
    return min(end, max(0, (out - 1) * stride + kernel - size - begin))


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

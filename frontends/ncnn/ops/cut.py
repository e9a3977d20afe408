"""Layers that cut blobs apart and put them together: slice, crop, concat, padding, tile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.frontends.ncnn.expression import evaluate
from qconvert.frontends.ncnn.ops.window import pad
from qconvert.frontends.ncnn.registry import converts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Builder, Dims

__all__: list[str] = []

_REST: Final = -233


@converts("Concat")
def _concat(b: Builder, layer: Layer) -> ir.Value:
    """Join blobs along an axis; the other sizes agree."""
    values = b.inputs()
    shapes = [b.dims(value) for value in values]
    axis = b.axis(layer.int(0, 0), len(shapes[0]))
    others = {(len(dims), dims[:axis] + dims[axis + 1 :]) for dims in shapes}
    if len(others) != 1:
        raise b.bad(
            f"the inputs of Concat '{layer.name}' do not fit together",
            ", ".join(str(list(dims)) for dims in shapes),
        )
    out = list(shapes[0])
    out[axis] = sum(dims[axis] for dims in shapes)
    return b.emit("Concat", values, out, {"axis": axis + 1})


@converts("Slice")
def _slice(b: Builder, layer: Layer) -> list[ir.Value]:
    """Cut a blob along an axis: by sizes (-233: an even share of the rest), or by cut points.

    Source: src/layer/slice.cpp.
    """
    x = b.input()
    dims = b.dims(x)
    axis = b.axis(layer.int(1, 0), len(dims))
    sizes = _sizes(b, dims[axis])
    shapes = [(*dims[:axis], size, *dims[axis + 1 :]) for size in sizes]
    for shape in shapes:
        b.check(shape)
    if sum(sizes) > dims[axis]:
        raise b.bad(f"Slice '{layer.name}' cuts {sizes} out of {dims[axis]}")
    if sum(sizes) < dims[axis]:
        starts = np.cumsum([0, *sizes])
        bounds = [
            (int(start), int(start) + size) for start, size in zip(starts, sizes, strict=False)
        ]
        return [_cut(b, x, {axis: pair}, f"piece_{i}") for i, pair in enumerate(bounds)]
    return b.emit_several("Split", [x, b.ints(sizes, "sizes")], shapes, {"axis": axis + 1})


def _sizes(b: Builder, total: int) -> list[int]:
    """The sizes of the pieces."""
    count = len(b.layer.outputs)
    slices, points = b.layer.ints(0), b.layer.ints(2)
    given = len(points) + 1 if points else len(slices)
    if given < count or not count:
        raise b.bad(f"Slice '{b.layer.name}' makes {count} pieces and describes {given}")
    sizes: list[int] = []
    for index in range(count):
        done = sum(sizes)
        if points:
            last = index == count - 1
            stop = total if last else points[index] + (total if points[index] < 0 else 0)
            sizes.append(stop - done)
        elif slices[index] == _REST:
            sizes.append((total - done) // (count - index))
        else:
            sizes.append(slices[index])
    return sizes


def _cut(b: Builder, x: ir.Value, bounds: dict[int, tuple[int, int]], part: str = "") -> ir.Value:
    """The part of `x` between bounds, axis of the dims → (start, stop)."""
    dims = b.dims(x)
    out = [
        bounds[axis][1] - bounds[axis][0] if axis in bounds else n for axis, n in enumerate(dims)
    ]
    axes = sorted(bounds)
    name = f"{part}_" if part else ""
    operands = [
        b.ints([bounds[axis][0] for axis in axes], f"{name}starts"),
        b.ints([bounds[axis][1] for axis in axes], f"{name}ends"),
        b.ints([axis + 1 for axis in axes], f"{name}axes"),
    ]
    return b.emit("Slice", [x, *operands], out, part=part)


def _crop_why_not(layer: Layer) -> str | None:
    """Crops whose place is data."""
    return "its place is computed at run time (0=-233)" if layer.int(0, 0) == _REST else None


@converts("Crop", why_not=_crop_why_not)
def _crop(b: Builder, layer: Layer) -> ir.Value:
    """A part of a blob, given by starts and ends, by offsets and sizes, or by a second blob.

    Source: src/layer/crop.cpp, resolve_crop_roi.
    """
    x = b.input()
    dims = b.dims(x)
    if layer.text(19) and layer.text(20):
        bounds = _ranges(b, dims, *(_evaluate(b, layer.text(key)) for key in (19, 20, 21)))
    elif layer.ints(9) and layer.ints(10):
        bounds = _ranges(b, dims, layer.ints(9), layer.ints(10), layer.ints(11))
    elif any(layer.int(key, 0) for key in (3, 4, 14, 5, 6, 7, 15, 8)):
        bounds = _offsets(b, dims)
    else:
        bounds = _like(b, dims, b.dims(b.input(1)))
    for axis, (start, stop) in bounds.items():
        if not 0 <= start < stop <= dims[axis]:
            raise b.bad(
                f"Crop '{layer.name}' takes {start}..{stop} of axis {axis}",
                f"its input has shape {list(dims)}",
            )
    if all(pair == (0, dims[axis]) for axis, pair in bounds.items()):
        return b.emit("Identity", [x], dims)
    return _cut(b, x, bounds)


def _evaluate(b: Builder, text: str) -> list[int]:
    """A list of numbers over the shapes of the inputs."""
    try:
        return evaluate(text, [b.dims(value) for value in b.inputs()])
    except ValueError as error:
        raise b.bad(f"the expression of '{b.layer.name}' is not valid", str(error)) from error


def _ranges(
    b: Builder, dims: Dims, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]
) -> dict[int, tuple[int, int]]:
    """Bounds by numpy's rule; -233 leaves an end open."""
    chosen = list(axes) or list(range(len(dims)))
    if len(starts) < len(chosen) or len(ends) < len(chosen):
        raise b.bad(
            f"Crop '{b.layer.name}' has {len(starts)} starts and {len(ends)} ends",
            f"for {len(chosen)} axes",
        )
    bounds = {}
    for given, first, last in zip(chosen, starts, ends, strict=False):
        axis = b.axis(given, len(dims))
        size = dims[axis]
        start = 0 if first == _REST else first
        stop = size if last == _REST else last
        start = start if start >= 0 else size + start
        bounds[axis] = (start, min(size, stop if stop > 0 else size + stop))
    return bounds


def _keys(rank: int, keys: tuple[int, int, int, int]) -> tuple[int, ...]:
    """Parameter ids of the axes of a blob, of (w, h, d, c), outermost first."""
    width, height, depth, channels = keys
    return ((width,), (height, width), (channels, height, width), (channels, depth, height, width))[
        rank - 1
    ]


def _offsets(b: Builder, dims: Dims) -> dict[int, tuple[int, int]]:
    """Bounds by offsets before and behind and sizes."""
    layer, bounds = b.layer, {}
    before = _keys(len(dims), (0, 1, 13, 2))
    sizes = _keys(len(dims), (3, 4, 14, 5))
    behind = _keys(len(dims), (6, 7, 15, 8))
    for axis, keys in enumerate(zip(before, sizes, behind, strict=True)):
        start, size, rest = (layer.int(key, 0) for key in keys)
        length = dims[axis] - start - rest
        bounds[axis] = (start, start + (length if size == _REST else min(size, length)))
    return bounds


def _like(b: Builder, dims: Dims, other: Dims) -> dict[int, tuple[int, int]]:
    """Bounds by offsets and the size of another blob; channels only when that has as many dims."""
    starts = [b.layer.int(key, 0) for key in _keys(len(dims), (0, 1, 13, 2))]
    sizes = list(((1,) * len(dims) + other)[-len(dims) :])
    if len(dims) > 2 and len(other) != len(dims):
        sizes[0] = dims[0]
    return {
        axis: (start, start + n) for axis, (start, n) in enumerate(zip(starts, sizes, strict=True))
    }


def _padding_why_not(layer: Layer) -> str | None:
    kind = layer.int(4, 0)
    if kind not in {0, 1, 2}:
        return f"padding type {kind} is not known"
    if layer.int(6, 0) and (kind or layer.int(7, 0) or layer.int(8, 0)):
        return "a value per channel goes with constant padding of rows and columns only"
    return None


@converts("Padding", why_not=_padding_why_not)
def _padding(b: Builder, layer: Layer) -> ir.Value:
    """Border of a constant, of the edge, or reflected; front and behind pad channels, or depth.

    Source: src/layer/padding.cpp.
    """
    x = b.input()
    dims = b.dims(x)
    front, behind = layer.int(7, 0), layer.int(8, 0)
    rows = [(front, behind), (layer.int(0, 0), layer.int(1, 0)), (layer.int(2, 0), layer.int(3, 0))]
    pairs = [(0, 0), *rows] if len(dims) == 4 else rows[3 - len(dims) :]
    if any(size < 0 for pair in pairs for size in pair):
        raise b.bad(f"Padding '{layer.name}' has a negative size: {pairs}")
    kind = layer.int(4, 0)
    if kind == 2 and any(max(pair) >= n for pair, n in zip(pairs, dims, strict=True)):
        raise b.bad(
            f"Padding '{layer.name}' reflects more than there is", f"{pairs} of {list(dims)}"
        )
    if not any(map(any, pairs)):
        return b.emit("Identity", [x], dims)
    if layer.int(6, 0):
        return _pad_per_channel(b, x, pairs)
    begin, end = [p for p, _ in pairs], [q for _, q in pairs]
    out = [p + n + q for n, (p, q) in zip(dims, pairs, strict=True)]
    operands = [x, b.ints([0, *begin, 0, *end], "pads")]
    if kind == 0:
        operands.append(b.scalar(layer.float(5, 0.0), "value"))
    mode = ("constant", "edge", "reflect")[kind]
    return b.emit("Pad", operands, out, {"mode": mode})


def _pad_per_channel(b: Builder, x: ir.Value, pairs: Sequence[tuple[int, int]]) -> ir.Value:
    """A border with a value of its own for each channel: zeros, and the values added there."""
    dims = b.dims(x)
    values = b.weight("values")
    if len(dims) != 3 or values.size != dims[0]:
        raise b.bad(f"Padding '{b.layer.name}' has {values.size} values for {list(dims)}")
    (top, bottom), (left, right) = pairs[1:]
    padded = pad(b, x, (top, left), (bottom, right), 0.0)
    out = b.dims(padded)
    b.check_table(out[1:])
    border = np.ones(out[1:], dtype=np.float32)
    border[top : top + dims[1], left : left + dims[2]] = 0.0
    factors = [border[None, None], values.reshape(1, -1, 1, 1)]
    shares = [b.constant(a, name) for a, name in zip(factors, ("border", "values"), strict=True)]
    addend = b.emit("Mul", shares, out, part="border")
    return b.emit("Add", [padded, addend], out)


@converts("Tile")
def _tile(b: Builder, layer: Layer) -> ir.Value:
    """Repeat along one axis, or along the innermost ones of a list (src/layer/tile.cpp)."""
    x = b.input()
    dims = b.dims(x)
    repeats = list(layer.ints(2))
    if not repeats:
        axis = 0 if len(dims) == 1 else layer.int(0, 0)
        repeats = [1] * len(dims)
        repeats[b.axis(axis, len(dims))] = layer.int(1, 1)
    if len(repeats) > 4 or min(repeats) < 1:
        raise b.bad(f"Tile '{layer.name}' repeats {repeats} times")
    rank = max(len(dims), len(repeats))
    dims = (1,) * (rank - len(dims)) + dims
    repeats = [1] * (rank - len(repeats)) + repeats
    x = b.reshape(x, dims, "expand")
    out = [n * m for n, m in zip(dims, repeats, strict=True)]
    return b.emit("Tile", [x, b.ints([1, *repeats], "repeats")], out)

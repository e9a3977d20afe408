"""Interp: nearest, bilinear and bicubic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.frontends.ncnn.expression import evaluate
from qconvert.frontends.ncnn.registry import converts

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Attribute, Builder, Dims

__all__: list[str] = []

_NEAREST, _BILINEAR, _BICUBIC = 1, 2, 3
_LARGEST_SIDE: Final = 1 << 20


def _why_not(layer: Layer) -> str | None:
    """Unknown kinds of interpolation."""
    kind = layer.int(0, 0)
    return None if kind in {_NEAREST, _BILINEAR, _BICUBIC} else f"resize type {kind} is not known"


@converts("Interp", why_not=_why_not)
def _interp(b: Builder, layer: Layer) -> ir.Value:
    """Resize of [c, h, w]; of [h, w] along w alone; of [w] to images of one value each.

    Source: src/layer/interp.cpp. The size is given, or follows from scales, or is that of a
    second input, or a size expression.
    """
    x = b.input()
    dims = b.dims(x)
    if len(dims) > 3:
        raise b.bad(f"Interp '{layer.name}' reads a blob of {len(dims)} dims", "it works on 1 to 3")
    size, by_scale = _target(b, dims)
    if max(size) > _LARGEST_SIDE:
        raise b.bad(f"Interp '{layer.name}' resizes to {list(size)}")
    if len(dims) == 1:
        pixels = b.reshape(x, (dims[0], 1, 1), "pixels")
        shape = b.ints([1, dims[0], *size], "shape")
        return b.emit("Expand", [pixels, shape], (dims[0], *size))
    image = b.as_image(x)
    if len(dims) == 2:
        size = (dims[0], size[1])
    y = _resize(b, image, size, by_scale=by_scale)
    return b.reshape(y, size) if len(dims) == 2 else y


def _target(b: Builder, dims: Dims) -> tuple[Dims, bool]:
    """(height, width) of the result, and whether it comes from scales."""
    layer = b.layer
    height, width = (1, 1, *dims)[-2:] if len(dims) > 1 else (1, 1)
    if text := layer.text(9):
        sizes = _evaluate(b, text)
        if len(sizes) not in {1, 2}:
            raise b.bad(f"the size expression of '{layer.name}' gives {len(sizes)} numbers")
        size = (sizes[1] if len(sizes) == 2 else height, sizes[0])
        return size, False
    if len(layer.inputs) > 1:
        other = b.dims(b.input(1))
        return (1, *other)[-2:], False
    if layer.int(5, 0):
        raise b.bad(f"Interp '{layer.name}' has no second input", "5=1 takes the size from it")
    size = (layer.int(3, 0), layer.int(4, 0))
    if 0 not in size:
        return size, False
    scales = [np.float32(layer.float(key, 1.0)) for key in (1, 2)]
    with np.errstate(over="ignore"):
        products = [float(np.float32(n) * s) for n, s in zip((height, width), scales, strict=True)]
    if not all(1 <= product < _LARGEST_SIDE for product in products):
        raise b.bad(f"Interp '{layer.name}' resizes to {products}")
    return (int(products[0]), int(products[1])), True


def _evaluate(b: Builder, text: str) -> list[int]:
    """A size expression over the inputs of the layer."""
    try:
        return evaluate(text, [b.dims(value) for value in b.inputs()])
    except ValueError as error:
        raise b.bad(f"the expression of '{b.layer.name}' is not valid", str(error)) from error


def _resize(b: Builder, x: ir.Value, size: Dims, *, by_scale: bool) -> ir.Value:
    """Resize [c, h, w] to `size`."""
    channels, *before = b.dims(x)
    if tuple(before) == size:
        return b.emit("Identity", [x], (channels, *size))
    kind = b.layer.int(0, 0)
    if kind == _NEAREST:
        wanted = [
            _nearest(n, m, b.layer.float(key, 1.0) if by_scale else None)
            for n, m, key in zip(before, size, (1, 2), strict=True)
        ]
        ratios = zip(before, size, wanted, strict=True)
        if not all(np.array_equal(rows, _onnx_nearest(n, m)) for n, m, rows in ratios):
            return _gather(b, x, wanted)
    attributes: dict[str, Attribute] = {"mode": {1: "nearest", 2: "linear", 3: "cubic"}[kind]}
    if kind == _NEAREST:
        attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        corners = "align_corners" if b.layer.int(6, 0) else "half_pixel"
        attributes |= {"coordinate_transformation_mode": corners}
    out = (channels, *size)
    if by_scale and kind != _NEAREST and not b.layer.int(6, 0):
        scales = [b.layer.float(key, 1.0) for key in (1, 2)]
        if any(n * scale != m for n, scale, m in zip(before, scales, size, strict=True)):
            b.report.warn(
                f"Interp '{b.layer.name}' has scales {scales} that do not divide {before}: "
                "newer releases of ncnn take them as they are, older ones the ratio of the sizes; "
                "read here as in newer ones"
            )
            factors = b.constant(np.asarray([1, 1, *scales], dtype=np.float32), "scales")
            return b.emit("Resize", [x, None, factors], out, attributes)
    return b.emit("Resize", [x, None, None, b.ints([1, *out], "sizes")], out, attributes)


def _nearest(before: int, after: int, scale: float | None) -> npt.NDArray[np.int64]:
    """Which row each row of the result is taken from, in ncnn's single precision.

    A scale counts as it stands, also where it does not divide the size.
    """
    step = np.float32(1) / np.float32(scale) if scale else np.float32(before) / np.float32(after)
    rows = (np.arange(after, dtype=np.float32) * step).astype(np.int64)
    return np.asarray(np.minimum(rows, before - 1), dtype=np.int64)


def _onnx_nearest(before: int, after: int) -> npt.NDArray[np.int64]:
    """The same of ONNX's asymmetric Resize with rounding down."""
    scale = np.float32(after) / np.float32(before)
    rows = np.floor(np.arange(after, dtype=np.float32) / scale).astype(np.int64)
    return np.asarray(np.minimum(rows, before - 1), dtype=np.int64)


def _gather(b: Builder, x: ir.Value, rows: list[npt.NDArray[np.int64]]) -> ir.Value:
    """Pick rows, then columns, where ncnn's choice is not that of ONNX's Resize."""
    channels, height, width = b.dims(x)
    if not np.array_equal(rows[0], np.arange(height)):
        height = rows[0].size
        index = b.constant(rows[0], "rows")
        x = b.emit("Gather", [x, index], (channels, height, width), {"axis": 2}, part="rows")
    columns = b.constant(rows[1], "columns")
    return b.emit("Gather", [x, columns], (channels, height, rows[1].size), {"axis": 3})

"""Reductions over axes, and the largest elements."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from qconvert.frontends.ncnn.registry import converts

if TYPE_CHECKING:
    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Builder

__all__: list[str] = []

_OPERATIONS: Final = {
    0: "ReduceSum",
    1: "ReduceL1",
    2: "ReduceSumSquare",
    3: "ReduceMean",
    4: "ReduceMax",
    5: "ReduceMin",
    6: "ReduceProd",
    7: "ReduceL1",
    8: "ReduceL2",
    9: "ReduceLogSum",
    10: "ReduceLogSumExp",
}


def _why_not(layer: Layer) -> str | None:
    """Unknown operations, and files from before axes were counted without the batch."""
    if layer.int(0, 0) not in _OPERATIONS:
        return f"operation {layer.int(0, 0)} is not known"
    if layer.ints(3) and not layer.int(5, 0):
        return "the file is too old to say which axes are meant; ncnn refuses it as well"
    return None


@converts("Reduction", why_not=_why_not)
def _reduction(b: Builder, layer: Layer) -> ir.Value:
    """Over all axes, or those of parameter 3; then times a coefficient (src/layer/reduction.cpp).

    What is left of no axes is a vector of one element.
    """
    x = b.input()
    dims = b.dims(x)
    every = layer.int(1, 1) or not layer.ints(3)
    axes = sorted({b.axis(axis, len(dims)) for axis in layer.ints(3)})
    if every:
        axes = list(range(len(dims)))
    keep = bool(layer.int(4, 0))
    kept = [1 if axis in axes else n for axis, n in enumerate(dims)]
    left = [n for axis, n in enumerate(dims) if axis not in axes]
    operands = [x, b.ints([axis + 1 for axis in axes], "axes")]
    attributes = {"keepdims": int(keep or not left)}
    y = b.emit(
        _OPERATIONS[layer.int(0, 0)], operands, kept if keep or not left else left, attributes
    )
    coefficient = layer.float(2, 1.0)
    if coefficient != 1.0:
        y = b.emit("Mul", [y, b.scalar(coefficient, "coefficient")], b.dims(y), part="scale")
    return y if keep or left else b.reshape(y, (1,))


@converts("ArgMax")
def _arg_max(b: Builder, layer: Layer) -> ir.Value:
    """The k largest elements of a blob: their places [1, k], or [2, k] with the values above them.

    Source: src/layer/argmax.cpp.
    """
    x = b.input()
    size = math.prod(b.dims(x))
    count = b.positive(1, 1)
    if count > size:
        raise b.bad(f"ArgMax '{layer.name}' wants {count} of {size} elements")
    if len(b.dims(x)) > 2:
        raise b.unsupported(
            f"ArgMax of {len(b.dims(x))} dims", "ncnn counts the gaps between channels as elements"
        )
    x = b.reshape(x, (size,), "flatten")
    values, places = b.emit_several("TopK", [x, b.ints([count], "k")], [(count,)] * 2, {"axis": 1})
    places.dtype = ir.DataType.INT64
    cast = {"to": int(ir.DataType.FLOAT)}
    index = b.reshape(b.emit("Cast", [places], (count,), cast, part="cast"), (1, count), "places")
    if not layer.int(0, 0):
        return index
    rows = [b.reshape(values, (1, count), "values"), index]
    return b.emit("Concat", rows, (2, count), {"axis": 1}, part="concat")

"""Arithmetic between blobs, with a number, and on one blob."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.frontends.ncnn.registry import converts

if TYPE_CHECKING:
    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Builder, Dims

__all__: list[str] = []

# Operation → (ONNX operator, whether the operands change places).
_BINARY: Final = {
    0: ("Add", False),
    1: ("Sub", False),
    2: ("Mul", False),
    3: ("Div", False),
    4: ("Max", False),
    5: ("Min", False),
    6: ("Pow", False),
    7: ("Sub", True),
    8: ("Div", True),
    9: ("Pow", True),
    12: ("Mod", False),
    13: ("Mod", True),
    15: ("Div", False),
    16: ("Div", True),
}
_FLOOR_DIVIDE: Final = {15, 16}
_LOG_ADD_EXP: Final = 14

_UNARY: Final = {
    0: ("Abs",),
    1: ("Neg",),
    2: ("Floor",),
    3: ("Ceil",),
    5: ("Sqrt",),
    6: ("Sqrt", "Reciprocal"),
    7: ("Exp",),
    8: ("Log",),
    9: ("Sin",),
    10: ("Cos",),
    11: ("Tan",),
    12: ("Asin",),
    13: ("Acos",),
    14: ("Atan",),
    15: ("Reciprocal",),
    16: ("Tanh",),
    18: ("Round",),
    20: ("Sign",),
    22: ("Sinh",),
    23: ("Asinh",),
    24: ("Cosh",),
    25: ("Acosh",),
    26: ("Atanh",),
}
_SQUARE, _LOG10, _TRUNC, _EXPM1, _LOG1P = 4, 17, 19, 21, 27


def _binary_why_not(layer: Layer) -> str | None:
    """Operations ONNX has no word for: atan2 and IEEE remainder."""
    kind = layer.int(0, 0)
    return (
        None if kind in _BINARY or kind == _LOG_ADD_EXP else f"operation {kind} is not expressible"
    )


@converts("BinaryOp", why_not=_binary_why_not)
def _binary(b: Builder, layer: Layer) -> ir.Value:
    """A op b, or a op number; any dims (src/layer/binaryop.cpp)."""
    x = b.input()
    if layer.int(1, 0):
        return _operate(b, x, b.scalar(layer.float(2, 0.0), "operand"), b.dims(x))
    left, right = _broadcast(b, x, b.input(1))
    pairs = zip(b.dims(left), b.dims(right), strict=True)
    if any(m != n and 1 not in {m, n} for m, n in pairs):
        raise b.bad(
            f"the inputs of '{layer.name}' do not fit together",
            f"{list(b.dims(left))} and {list(b.dims(right))}",
        )
    out = tuple(max(m, n) for m, n in zip(b.dims(left), b.dims(right), strict=True))
    return _operate(b, left, right, out)


def _operate(b: Builder, left: ir.Value, right: ir.Value, out: Dims) -> ir.Value:
    """The operation of the layer on operands that broadcast as in ONNX."""
    kind = b.layer.int(0, 0)
    if kind == _LOG_ADD_EXP:
        return _log_add_exp(b, left, right, out)
    op_type, swapped = _BINARY[kind]
    operands = [right, left] if swapped else [left, right]
    if kind in _FLOOR_DIVIDE:
        return b.emit("Floor", [b.emit(op_type, operands, out, part="div")], out)
    return b.emit(op_type, operands, out, {"fmod": 1} if op_type == "Mod" else None)


def _log_add_exp(b: Builder, left: ir.Value, right: ir.Value, out: Dims) -> ir.Value:
    """log(exp(a) + exp(b)) = max(a, b) + softplus(-|a - b|), which does not overflow."""
    larger = b.emit("Max", [left, right], out, part="max")
    difference = b.emit("Sub", [left, right], out, part="sub")
    distance = b.emit("Abs", [difference], out, part="abs")
    negative = b.emit("Neg", [distance], out, part="neg")
    return b.emit("Add", [larger, b.emit("Softplus", [negative], out, part="softplus")], out)


def _broadcast(b: Builder, left: ir.Value, right: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Bring two blobs to the same number of dims, by ncnn's rule.

    Missing axes are added *inside*: `[h, w]` against `[c, h, w]` becomes `[h, w, 1]`. A vector
    goes to the outermost axis when it has that length, else to the innermost.
    """
    shapes = b.dims(left), b.dims(right)
    rank = max(map(len, shapes))
    return (
        _expand(b, left, shapes[1], rank, "left"),
        _expand(b, right, shapes[0], rank, "right"),
    )


def _expand(b: Builder, value: ir.Value, other: Dims, rank: int, part: str) -> ir.Value:
    """`value` with as many dims as `other`, if it has fewer."""
    dims = b.dims(value)
    ones = (1,) * (rank - len(dims))
    if len(dims) == 1 and ones and dims[0] != other[0]:
        return b.reshape(value, ones + dims, part)
    return b.reshape(value, dims + ones, part)


def _eltwise_why_not(layer: Layer) -> str | None:
    kind = layer.int(0, 0)
    return None if kind in {0, 1, 2} else f"operation {kind} is not known"


@converts("Eltwise", why_not=_eltwise_why_not)
def _eltwise(b: Builder, layer: Layer) -> ir.Value:
    """Product (the default), weighted sum or maximum of blobs of one shape."""
    values = b.inputs()
    dims = b.dims(values[0])
    if len(values) < 2 or any(b.dims(value) != dims for value in values):
        shapes = ", ".join(str(list(b.dims(value))) for value in values)
        raise b.bad(f"Eltwise '{layer.name}' needs two or more inputs of one shape", shapes)
    kind = layer.int(0, 0)
    if kind == 2:
        return b.emit("Max", values, dims)
    coefficients = layer.floats(1) if kind == 1 else ()
    if coefficients:
        if len(coefficients) < len(values):
            raise b.bad(f"Eltwise '{layer.name}' has {len(coefficients)} coefficients")
        values = [
            _times(b, value, factor, index)
            for index, (value, factor) in enumerate(zip(values, coefficients, strict=False))
        ]
    op_type = "Add" if kind == 1 else "Mul"
    result = values[0]
    for index, value in enumerate(values[1:], start=2):
        part = "" if index == len(values) else f"{op_type.lower()}_{index}"
        result = b.emit(op_type, [result, value], dims, part=part)
    return result


def _times(b: Builder, value: ir.Value, factor: float, index: int) -> ir.Value:
    """`value` times a coefficient."""
    if factor == 1.0:
        return value
    scalar = b.scalar(factor, f"coefficient_{index}")
    return b.emit("Mul", [value, scalar], b.dims(value), part=f"scale_{index}")


def _unary_why_not(layer: Layer) -> str | None:
    kind = layer.int(0, 0)
    known = kind in _UNARY or kind in {_SQUARE, _LOG10, _TRUNC, _EXPM1, _LOG1P}
    return None if known else f"operation {kind} is not known"


@converts("UnaryOp", why_not=_unary_why_not)
def _unary(b: Builder, layer: Layer) -> ir.Value:
    """One function of one blob; any dims (src/layer/unaryop.cpp). Round is half to even."""
    x = b.input()
    dims = b.dims(x)
    kind = layer.int(0, 0)
    if kind == _SQUARE:
        return b.emit("Mul", [x, x], dims)
    if kind == _LOG10:
        log = b.emit("Log", [x], dims, part="log")
        return b.emit("Mul", [log, b.scalar(1 / math.log(10), "factor")], dims)
    if kind == _TRUNC:
        whole = b.emit("Floor", [b.emit("Abs", [x], dims, part="abs")], dims, part="floor")
        return b.emit("Mul", [whole, b.emit("Sign", [x], dims, part="sign")], dims)
    if kind == _EXPM1:
        return b.emit("Sub", [b.emit("Exp", [x], dims, part="exp"), b.scalar(1, "one")], dims)
    if kind == _LOG1P:
        return b.emit("Log", [b.emit("Add", [x, b.scalar(1, "one")], dims, part="add")], dims)
    *first, last = _UNARY[kind]
    for op_type in first:
        x = b.emit(op_type, [x], dims, part=op_type.lower())
    return b.emit(last, [x], dims)


def _affine(b: Builder, x: ir.Value, scale: float, shift: float) -> ir.Value:
    """Shift + scale * x."""
    if scale != 1.0:
        x = b.emit("Mul", [x, b.scalar(scale, "scale")], b.dims(x), part="scale")
    if shift != 0.0:
        x = b.emit("Add", [x, b.scalar(shift, "shift")], b.dims(x), part="shift")
    return x


@converts("Power")
def _power(b: Builder, layer: Layer) -> ir.Value:
    """(shift + scale * x) ^ power."""
    x = _affine(b, b.input(), layer.float(1, 1.0), layer.float(2, 0.0))
    exponent = layer.float(0, 1.0)
    if exponent == 1.0:
        return x
    return b.emit("Pow", [x, b.scalar(exponent, "exponent")], b.dims(x))


def _base_why_not(layer: Layer) -> str | None:
    base = layer.float(0, -1.0)
    if base == -1.0 or (base > 0 and base != 1.0):
        return None
    return f"base {base:g} is not a base"


@converts("Exp", why_not=_base_why_not)
def _exp(b: Builder, layer: Layer) -> ir.Value:
    """Base ^ (shift + scale * x), base e when it is -1."""
    x = _affine(b, b.input(), layer.float(1, 1.0), layer.float(2, 0.0))
    base = layer.float(0, -1.0)
    if base == -1.0:
        return b.emit("Exp", [x], b.dims(x))
    return b.emit("Pow", [b.scalar(base, "base"), x], b.dims(x))


@converts("Log", why_not=_base_why_not)
def _log(b: Builder, layer: Layer) -> ir.Value:
    """Logarithm of shift + scale * x to a base, e when it is -1."""
    x = _affine(b, b.input(), layer.float(1, 1.0), layer.float(2, 0.0))
    base = layer.float(0, -1.0)
    y = b.emit("Log", [x], b.dims(x))
    if base == -1.0:
        return y
    factor = float(np.float32(1) / np.log(np.float32(base)))
    return b.emit("Mul", [y, b.scalar(factor, "factor")], b.dims(x), part="base")


@converts("Threshold")
def _threshold(b: Builder, layer: Layer) -> ir.Value:
    """1 where x > threshold, else 0."""
    x = b.input()
    limit = b.scalar(layer.float(0, 0.0), "threshold")
    above = b.emit("Greater", [x, limit], b.dims(x), part="greater", dtype=ir.DataType.BOOL)
    return b.emit("Cast", [above], b.dims(x), {"to": int(ir.DataType.FLOAT)})


@converts("Dropout")
def _dropout(b: Builder, layer: Layer) -> ir.Value:
    """Nothing, or x times a number (old files)."""
    x, scale = b.input(), layer.float(0, 1.0)
    if scale == 1.0:
        return b.emit("Identity", [x], b.dims(x))
    return b.emit("Mul", [x, b.scalar(scale, "scale")], b.dims(x))


@converts("Noop", "DeepCopy")
def _noop(b: Builder, layer: Layer) -> list[ir.Value]:
    """Every input as it is."""
    if not layer.outputs:
        return []
    return [b.emit("Identity", [x], b.dims(x), part=f"copy_{i}") for i, x in enumerate(b.inputs())]


def _cast_why_not(layer: Layer) -> str | None:
    kinds = {layer.int(0, 0), layer.int(1, 0)}
    return None if kinds <= {0, 1, 2, 4} else "it casts to integers"


@converts("Cast", why_not=_cast_why_not)
def _cast(b: Builder, layer: Layer) -> ir.Value:  # noqa: ARG001 - one signature for all
    """Between float types: the graph is float32 throughout."""
    x = b.input()
    return b.emit("Identity", [x], b.dims(x))

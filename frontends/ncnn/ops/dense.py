"""Products with matrices: InnerProduct, Gemm, MatMul, Embed, and constants."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.frontends.ncnn.ops.activation import activate, fused_why_not
from qconvert.frontends.ncnn.ops.int8 import input_twin, weight_twin
from qconvert.frontends.ncnn.registry import converts

if TYPE_CHECKING:
    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Builder, Dims
    from qconvert.quant import F32

__all__ = ["dequantized"]


def _inner_product_why_not(layer: Layer) -> str | None:
    term = layer.int(8, 0)
    return fused_why_not(layer) if term in {0, 1, 2} else f"int8_scale_term {term} is not known"


@converts("InnerProduct", why_not=_inner_product_why_not)
def _inner_product(b: Builder, layer: Layer) -> ir.Value:
    """Weight [O, in] times the blob as a vector, or times each row of [h, in].

    Source: src/layer/innerproduct.cpp.
    """
    x = b.input()
    dims = b.dims(x)
    outputs = b.positive(0, 0)
    size = b.weights["weight"].size
    width = size // outputs
    rows = len(dims) == 2 and dims[1] == width
    if size % outputs or (not rows and math.prod(dims) != width):
        raise b.bad(
            f"the weight of '{layer.name}' has {size} values",
            f"{outputs} outputs of {math.prod(dims)} inputs need {outputs * math.prod(dims)}",
        )
    if not rows and len(dims) > 1:
        x = b.emit("Flatten", [x], (width,), {"axis": 1}, part="flatten")
    quantized = bool(layer.int(8, 0))
    if quantized:
        x = input_twin(b, x)
    return activate(b, _rows(b, x) if rows else _vector(b, x))


def _vector(b: Builder, x: ir.Value) -> ir.Value:
    """One vector [in] → [O], as Gemm."""
    outputs = b.layer.int(0, 0)
    shape = (outputs, b.weights["weight"].size // outputs)
    if b.layer.int(8, 0):
        weight = weight_twin(b, shape, b.weight("weight_scales"), axis=0)
    else:
        weight = b.constant(b.weight("weight").reshape(shape), "weight")
    bias = [b.constant(b.weight("bias"), "bias")] if "bias" in b.weights else []
    return b.emit("Gemm", [x, weight, *bias], (outputs,), {"transB": 1})


def _rows(b: Builder, x: ir.Value) -> ir.Value:
    """Rows [h, in] → [h, O], as MatMul with the transposed weight."""
    outputs = b.layer.int(0, 0)
    shape = (outputs, b.weights["weight"].size // outputs)
    out = (b.dims(x)[0], outputs)
    if b.layer.int(8, 0):
        codes = weight_twin(b, shape, b.weight("weight_scales"), axis=0)
        weight = b.emit("Transpose", [codes], shape[:1], {"perm": [1, 0]}, part="transpose")
        weight.shape = ir.Shape(shape[::-1])
    else:
        weight = b.constant(b.weight("weight").reshape(shape).T, "weight")
    y = b.emit("MatMul", [x, weight], out)
    if "bias" not in b.weights:
        return y
    return b.emit("Add", [y, b.constant(b.weight("bias"), "bias")], out, part="bias")


def dequantized(b: Builder, name: str, scales: str, rows: int) -> F32:
    """Weight `name` as float32: as stored, or codes divided by the scales of their `rows`.

    For layers whose activations ncnn quantizes as it runs: that has no place in the graph, and a
    warning says so.

    Raises:
        ModelFormatError: If a scale is not positive.
    """
    if b.weights[name].dtype != np.int8:
        return b.weight(name)
    if scales not in b.weights:
        raise b.bad(f"the {name} of '{b.layer.name}' is stored as int8, without a scale")
    b.report.warn(
        f"{b.layer.kind} '{b.layer.name}' has int8 weights: ncnn quantizes its activations as it "
        "runs, the model read here keeps them in float"
    )
    factors = b.weight(scales)
    if factors.min() <= 0:
        raise b.bad(
            f"the {scales} of '{b.layer.name}' hold {factors.min():g}", "a scale is positive"
        )
    codes = b.weights[name].reshape(rows if factors.size > 1 else 1, -1).astype(np.float32)
    return (codes / factors[:, None]).astype(np.float32).ravel()


_C_BROADCAST: Final = {-1, 0, 1, 2, 3, 4}


def _gemm_why_not(layer: Layer) -> str | None:
    """Layouts of other kinds, and formats of language models."""
    if layer.int(18, 0) >= 400:
        return "its weights are quantized in blocks"
    if layer.int(11, 0):
        return "its output has the layout [n, 1, m]"
    if layer.int(6, 0) and layer.int(10, 0) not in _C_BROADCAST:
        return f"broadcast type {layer.int(10, 0)} is not known"
    return None


@converts("Gemm", why_not=_gemm_why_not)
def _gemm(b: Builder, layer: Layer) -> ir.Value:
    """Alpha * (A B + beta * C), A [m, k] and B [k, n]; each is a constant or the next input.

    Source: src/layer/gemm.cpp.
    """
    inputs = b.inputs() if layer.inputs else []
    wanted = sum(layer.int(key, 0) != 1 for key in (4, 5))
    if len(inputs) < wanted:
        raise b.bad(f"Gemm '{layer.name}' has {len(inputs)} inputs", f"it needs {wanted}")
    left = _constant_a(b) if layer.int(4, 0) == 1 else _operand(b, inputs.pop(0), 2, "a")
    right = _constant_b(b) if layer.int(5, 0) == 1 else _operand(b, inputs.pop(0), 3, "b")
    (m, k), (height, n) = b.dims(left), b.dims(right)
    if k != height:
        raise b.bad(f"Gemm '{layer.name}' cannot multiply [{m}, {k}] and [{height}, {n}]")
    y = b.emit("MatMul", [left, right], (m, n))
    if layer.int(6, 0) == 1:
        addend = _constant_c(b, m, n)
    else:
        addend = _addend(b, inputs[0], m, n) if inputs else None
    if addend is not None:
        y = b.emit("Add", [y, addend], (m, n), part="add")
    alpha = layer.float(0, 1.0)
    if alpha != 1.0:
        y = b.emit("Mul", [y, b.scalar(alpha, "alpha")], (m, n), part="alpha")
    if layer.int(14, 0):
        y = b.emit("Transpose", [y], (n, m), {"perm": [0, 2, 1]}, part="output_transpose")
    return y


def _operand(b: Builder, x: ir.Value, transposed: int, part: str) -> ir.Value:
    """An input as a matrix, transposed when parameter `transposed` says so."""
    dims = b.dims(x)
    if len(dims) == 1:
        x = b.reshape(x, (1, *dims), f"{part}_matrix")
    elif len(dims) == 3 and dims[1] == 1:
        x = b.reshape(x, (dims[0], dims[2]), f"{part}_matrix")
    elif len(dims) != 2:
        raise b.bad(f"Gemm '{b.layer.name}' reads a blob of {len(dims)} dims", "it works on 2")
    if not b.layer.int(transposed, 0):
        return x
    rows, columns = b.dims(x)
    return b.emit("Transpose", [x], (columns, rows), {"perm": [0, 2, 1]}, part=f"{part}_transpose")


def _matrix(b: Builder, array: F32, part: str) -> ir.Value:
    """A constant with a batch axis of 1, so that it has dims like a blob."""
    return b.constant(array[None], part)


def _constant_a(b: Builder) -> ir.Value:
    """A [m, k], stored transposed when parameter 2 is set; its scales are per row of [m, k]."""
    m, k = b.layer.int(7, 0), b.layer.int(9, 0)
    if not b.layer.int(2, 0):
        return _matrix(b, dequantized(b, "A", "A_scales", m).reshape(m, k), "A")
    if b.weights["A"].dtype == np.int8:
        raise b.unsupported(f"the transposed int8 constant A of Gemm '{b.layer.name}'")
    return _matrix(b, b.weight("A").reshape(k, m).T, "A")


def _constant_b(b: Builder) -> ir.Value:
    """B [k, n], stored transposed when parameter 3 is set; it has one scale."""
    n, k = b.layer.int(8, 0), b.layer.int(9, 0)
    data = dequantized(b, "B", "B_scale", 1)
    transposed = bool(b.layer.int(3, 0))
    return _matrix(b, data.reshape(n, k).T if transposed else data.reshape(k, n), "weight")


def _constant_c(b: Builder, m: int, n: int) -> ir.Value | None:
    """Beta * C, shaped to broadcast to [m, n]."""
    kind = b.layer.int(10, 0)
    if kind == -1:
        return None
    shape = {0: (1, 1), 1: (m, 1), 2: (m, 1), 3: (m, n), 4: (1, n)}[kind]
    data = b.weight("C")
    if data.size != math.prod(shape):
        raise b.bad(
            f"the constant C of Gemm '{b.layer.name}' has {data.size} values",
            f"the product has shape [{m}, {n}]",
        )
    return _matrix(b, data.reshape(shape) * np.float32(b.layer.float(1, 1.0)), "bias")


def _addend(b: Builder, c: ir.Value, m: int, n: int) -> ir.Value:
    """Beta * C of an input; a vector of m numbers stands for a column unless n == m."""
    dims = b.dims(c)
    if len(dims) == 1:
        c = b.reshape(c, (dims[0], 1) if dims[0] == m != n else (1, dims[0]), "c_matrix")
    if b.dims(c) not in {(1, 1), (m, 1), (m, n), (1, n)}:
        raise b.bad(f"Gemm '{b.layer.name}' cannot add {list(dims)} to [{m}, {n}]")
    beta = b.layer.float(1, 1.0)
    return c if beta == 1.0 else b.emit("Mul", [c, b.scalar(beta, "beta")], b.dims(c), part="beta")


@converts("MatMul")
def _mat_mul(b: Builder, layer: Layer) -> ir.Value:
    """Matrix product over the two innermost axes; the others broadcast, aligned inside.

    A vector on the left is a row, one on the right a column; their axis goes away. Source:
    src/layer/matmul.cpp.
    """
    left, right = b.input(), b.input(1)
    first, second = b.dims(left), b.dims(right)
    transposed = layer.int(0, 0) and len(second) > 1
    matrix_a = first if len(first) > 1 else (1, *first)
    matrix_b = second if len(second) > 1 else (*second, 1)
    rank = max(len(matrix_a), len(matrix_b))
    matrix_a = (1,) * (rank - len(matrix_a)) + matrix_a
    matrix_b = (1,) * (rank - len(matrix_b)) + matrix_b
    left = b.reshape(left, matrix_a, "left")
    right = b.reshape(right, matrix_b, "right")
    if transposed:
        matrix_b = (*matrix_b[:-2], matrix_b[-1], matrix_b[-2])
        perm = [*range(rank - 1), rank, rank - 1]
        right = b.emit("Transpose", [right], matrix_b, {"perm": perm}, part="transpose")
    batch = _broadcast(b, matrix_a[:-2], matrix_b[:-2])
    if matrix_a[-1] != matrix_b[-2]:
        raise b.bad(f"MatMul '{layer.name}' cannot multiply {list(first)} and {list(second)}")
    product = (*batch, matrix_a[-2], matrix_b[-1])
    y = b.emit("MatMul", [left, right], product)
    rows = product[-2:-1] if len(first) > 1 else ()
    columns = product[-1:] if len(second) > 1 else ()
    return b.reshape(y, (*batch, *rows, *columns) or (1,), "result")


def _broadcast(b: Builder, left: Dims, right: Dims) -> Dims:
    """The common shape of the outer axes of a product."""
    if any(m != n and 1 not in {m, n} for m, n in zip(left, right, strict=True)):
        raise b.bad(f"MatMul '{b.layer.name}' cannot broadcast {list(left)} and {list(right)}")
    return tuple(max(m, n) for m, n in zip(left, right, strict=True))


@converts("Embed")
def _embed(b: Builder, layer: Layer) -> ir.Value:
    """Rows of a table [input_dim, O] by index; indices beyond it take its ends.

    ncnn's blob holds the bits of int32; the network input here holds the numbers as float32.
    Source: src/layer/embed.cpp.
    """
    x = b.input()
    outputs, entries = b.positive(0, 0), b.positive(1, 0)
    table = dequantized(b, "weight", "weight_scale", 1)
    if table.size != outputs * entries:
        raise b.bad(
            f"the table of '{layer.name}' has {table.size} values", f"not {entries} x {outputs}"
        )
    words = b.reshape(x, (math.prod(b.dims(x)),), "words")
    dims = b.dims(words)
    bounds = [b.scalar(0, "first"), b.scalar(entries - 1, "last")]
    inside = b.emit("Clip", [words, *bounds], dims, part="clip")
    cast = {"to": int(ir.DataType.INT64)}
    index = b.emit("Cast", [inside], dims, cast, part="cast", dtype=ir.DataType.INT64)
    out = (*dims, outputs)
    operands = [b.constant(table.reshape(entries, outputs), "weight"), index]
    y = b.emit("Gather", operands, out, {"axis": 0})
    if "bias" not in b.weights:
        return y
    return b.emit("Add", [y, b.constant(b.weight("bias"), "bias")], out, part="bias")


@converts("MemoryData")
def _memory_data(b: Builder, layer: Layer) -> ir.Value:
    """A constant blob; without a shape it is one number, which ncnn leaves undefined."""
    width, height, depth, channels = (layer.int(key, 0) for key in (0, 1, 11, 2))
    dims: Dims
    if depth:
        dims = (channels, depth, height, width)
    elif channels:
        dims = (channels, height, width)
    else:
        dims = (height, width) if height else (width,)
    b.check(dims)
    data = b.weights["data"]
    if data.dtype != np.float32 or np.isnan(data).any():
        raise b.bad(f"MemoryData '{layer.name}' holds a NaN, or codes without a scale")
    return b.constant(data.reshape(1, *dims), "data")

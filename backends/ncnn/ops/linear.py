"""Gemm and MatMul: InnerProduct for a constant right side, else MatMul."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qconvert.backends.ncnn.ops.conv import int8_codes, integers_of, why_float
from qconvert.backends.ncnn.ops.elementwise import binary
from qconvert.backends.ncnn.registry import Refusal, lowers
from qconvert.qdq import pair_of

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context
    from qconvert.backends.ncnn.net import Blob, Integers, Weight
    from qconvert.backends.ncnn.ops.elementwise import Operand
    from qconvert.formats.ncnn_param import Param
    from qconvert.quant import F32


@dataclass(frozen=True, slots=True)
class _Linear:
    """How a matrix multiplication becomes an InnerProduct.

    Attributes:
        weight: Constant right side, [N, K] when `transposed`, else [K, N].
        transposed: See `weight`.
        alpha: Factor of the product.
        bias: [N], added to every row; None for none.
        trans_a: Whether the left side is transposed first.
    """

    weight: ir.Value | None
    transposed: bool
    alpha: float = 1.0
    bias: F32 | None = None
    trans_a: bool = False


@lowers("Gemm", to="InnerProduct, MatMul")
def _gemm(ctx: Context, node: ir.Node) -> None:
    """Alpha * A' B' + beta * C, A' [M, K]."""
    b = node.inputs[1]
    c = node.inputs[2] if len(node.inputs) > 2 else None
    alpha = float(node.attributes.get_float("alpha", 1.0))
    beta = float(node.attributes.get_float("beta", 1.0))
    trans_a = bool(node.attributes.get_int("transA", 0))
    trans_b = bool(node.attributes.get_int("transB", 0))
    out = ctx.shape(node.outputs[0])
    bias = _row(ctx, c, out[1], beta)
    if ctx.constant(b) is not None and (c is None or bias is not None):
        _inner_product(ctx, node, _Linear(b, trans_b, alpha, bias, trans_a))
        return
    product = _product(ctx, node, (trans_a, trans_b), alpha)
    if c is not None:
        addend: Operand = c
        if beta != 1.0:
            blob = ctx.blob(c)
            params: dict[int, Param] = {0: 2, 1: 1, 2: beta}
            scaled = ctx.layer("BinaryOp", [blob], params, shape=blob.shape, part="beta")
            addend = (scaled, ctx.shape(c))
        product = binary(ctx, 0, (product, out), addend, node.outputs[0], part="add")
    ctx.bind(node.outputs[0], product)


def _row(ctx: Context, c: ir.Value | None, width: int, beta: float) -> F32 | None:
    """Beta * C as one row [width] that is added to every row; None when C is something else."""
    addend = ctx.constant(c)
    if addend is None or addend.size not in {1, width}:
        return None
    if addend.ndim == 2 and addend.shape[0] != 1:
        return None
    flat = addend.astype(np.float32).reshape(-1) * np.float32(beta)
    return np.array(np.broadcast_to(flat, (width,)), dtype=np.float32)


def _product(ctx: Context, node: ir.Node, transposed: tuple[bool, bool], alpha: float) -> Blob:
    """Alpha * A' B' of two matrices, either of them computed."""
    left, right = (_matrix(ctx, node.inputs[i], transposed=transposed[i], index=i) for i in (0, 1))
    shape = (left.shape[0], right.shape[1])
    blob = ctx.layer("MatMul", [left, right], shape=shape, part="" if alpha == 1.0 else "matmul")
    if alpha != 1.0:
        blob = ctx.layer("BinaryOp", [blob], {0: 2, 1: 1, 2: alpha}, shape=shape, part="alpha")
    return blob


def _matrix(ctx: Context, value: ir.Value | None, transposed: bool, index: int) -> Blob:
    """`value` as two ncnn axes, transposed when asked for."""
    shape = ctx.shape(value)
    blob = ctx.reshape(ctx.blob(value), shape, f"matrix_{index}")
    if not transposed:
        return blob
    return ctx.layer("Permute", [blob], {0: 1}, shape=shape[::-1], part=f"transpose_{index}")


def _inner_product(ctx: Context, node: ir.Node, linear: _Linear) -> None:
    """InnerProduct with a constant weight; integers when Q/DQ nodes say so."""
    matrix = ctx.weights(linear.weight, "weight")
    matrix = matrix if linear.transposed else np.ascontiguousarray(matrix.T)
    outputs, width = matrix.shape
    scaled = matrix if linear.alpha == 1.0 else matrix * np.float32(linear.alpha)
    weights: dict[str, Weight] = {"weight": scaled}
    params: dict[int, Param] = {0: outputs, 2: matrix.size}
    if linear.bias is not None:
        params[1] = 1
        weights["bias"] = linear.bias
    source, record = node.inputs[0], None
    found = _integers(node, linear, outputs)
    if isinstance(found, tuple):
        source, record, codes = found
        weights["weight"] = codes if linear.transposed else np.ascontiguousarray(codes.T)
        record.weight_scales = (record.weight_scales * np.float32(linear.alpha)).astype(np.float32)
    blob = _matrix(ctx, source, transposed=True, index=0) if linear.trans_a else ctx.blob(source)
    if len(blob.shape) > 2 or blob.shape[-1] != width:
        blob = ctx.reshape(blob, (blob.size // width, width), "rows")
    shape = (*blob.shape[:-1], outputs)
    draft = ctx.draft("InnerProduct", [blob], params, shapes=[shape], weights=weights)
    draft.integers = record
    if isinstance(found, str):
        draft.details["float"] = found
    ctx.bind(node.outputs[0], draft.output)


def _integers(
    node: ir.Node, linear: _Linear, outputs: int
) -> tuple[ir.Value, Integers, npt.NDArray[np.int8]] | str | None:
    """Input, scales and codes; or why a quantized layer stays float; None: nothing is quantized."""
    pair, codes = pair_of(node.inputs[0]), int8_codes(linear.weight)
    if pair is None and codes is None:
        return None
    if linear.trans_a or linear.alpha <= 0:
        return "its input is transposed, or its factor negative"
    axis = 0 if linear.transposed else 1
    why = why_float(pair, codes, axis=axis)
    return why or integers_of(node.inputs[0], codes, outputs, axis=axis)


@lowers("MatMul", to="InnerProduct, MatMul (MultiHeadAttention around a Softmax)")
def _matmul(ctx: Context, node: ir.Node) -> None:
    """MatMul as numpy does it."""
    a, b = node.inputs[0], node.inputs[1]
    left, right = ctx.shape(a), ctx.shape(b)
    known = ctx.constant(b)
    if known is not None and known.ndim == 2 and left and ctx.constant(a) is None:
        _inner_product(ctx, node, _Linear(b, transposed=False))
        return
    if len(left) < 2 or len(right) < 2:
        full_left = left if len(left) > 1 else (1, *left)
        full_right = right if len(right) > 1 else (*right, 1)
        left, right = full_left, full_right
    rank = max(len(left), len(right))
    left = (1,) * (rank - len(left)) + left
    right = (1,) * (rank - len(right)) + right
    while rank > 2 and left[0] == 1 and right[0] == 1:
        left, right, rank = left[1:], right[1:], rank - 1
    if left[:-2] != right[:-2] and rank > 2:
        raise Refusal("its batch axes are broadcast against one another")
    first = ctx.reshape(ctx.blob(a), left, "left")
    second = ctx.reshape(ctx.blob(b), right, "right")
    shape = (*left[:-1], right[-1])
    ctx.bind(node.outputs[0], ctx.layer("MatMul", [first, second], shape=shape))

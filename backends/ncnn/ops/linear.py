"""Gemm and MatMul: InnerProduct for a constant right side, else MatMul."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.backends.ncnn.ops.conv import integers_of, why_float
from qconvert.backends.ncnn.ops.elementwise import binary
from qconvert.backends.ncnn.qdq import activation_of, codes_of
from qconvert.backends.ncnn.registry import Refusal, lowers

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context
    from qconvert.backends.ncnn.net import Blob, Shape, Weight
    from qconvert.formats.ncnn_param import Param
    from qconvert.quant import F32


@lowers("Gemm", to="InnerProduct, MatMul")
def _gemm(ctx: Context, node: ir.Node) -> None:
    """alpha * A' B' + beta * C, A' [M, K]."""
    a, b = node.inputs[0], node.inputs[1]
    c = node.inputs[2] if len(node.inputs) > 2 else None
    alpha = float(node.attributes.get_float("alpha", 1.0))
    beta = float(node.attributes.get_float("beta", 1.0))
    trans_a = node.attributes.get_int("transA", 0)
    trans_b = node.attributes.get_int("transB", 0)
    out = ctx.shape(node.outputs[0])
    addend = ctx.constant(c) if c is not None else None
    known = ctx.constant(b)
    as_bias = addend is not None and addend.size in {1, out[1]} and (
        addend.ndim < 2 or addend.shape[0] == 1
    )
    if known is not None and (c is None or as_bias):
        bias = None
        if addend is not None:
            flat = addend.astype(np.float32).reshape(-1) * np.float32(beta)
            bias = np.broadcast_to(flat, (out[1],)).astype(np.float32)
        _inner_product(
            ctx, node, b, transposed=bool(trans_b), alpha=alpha, bias=bias, trans_a=bool(trans_a)
        )
        return
    product = _product(ctx, node, (bool(trans_a), bool(trans_b)), alpha)
    if c is not None:
        scaled: Blob | None = None
        if beta != 1.0:
            blob = ctx.blob(c)
            scaled = ctx.layer(
                "BinaryOp", [blob], {0: 2, 1: 1, 2: beta}, shape=blob.shape, part="beta"
            )
        right = c if scaled is None else (scaled, ctx.shape(c))
        product = binary(ctx, 0, (product, out), right, node.outputs[0], part="add")
    ctx.bind(node.outputs[0], product)


def _product(ctx: Context, node: ir.Node, transposed: tuple[bool, bool], alpha: float) -> Blob:
    """alpha * A' B' of two matrices, either of them computed."""
    left, right = (_matrix(ctx, node.inputs[i], transposed[i], i) for i in (0, 1))
    shape = (left.shape[0], right.shape[1])
    blob = ctx.layer("MatMul", [left, right], shape=shape, part="" if alpha == 1.0 else "matmul")
    if alpha != 1.0:
        blob = ctx.layer("BinaryOp", [blob], {0: 2, 1: 1, 2: alpha}, shape=shape, part="alpha")
    return blob


def _matrix(ctx: Context, value: ir.Value | None, transposed: bool, index: int) -> Blob:  # noqa: FBT001
    """`value` as two ncnn axes, transposed when asked for."""
    shape = ctx.shape(value)
    blob = ctx.reshape(ctx.blob(value), shape, f"matrix_{index}")
    if not transposed:
        return blob
    return ctx.layer("Permute", [blob], {0: 1}, shape=shape[::-1], part=f"transpose_{index}")


def _inner_product(
    ctx: Context,
    node: ir.Node,
    b: ir.Value | None,
    *,
    transposed: bool,
    alpha: float = 1.0,
    bias: F32 | None = None,
    trans_a: bool = False,
) -> None:
    """InnerProduct with the constant `b`, [N, K] when `transposed`, else [K, N]."""
    a, out = node.inputs[0], ctx.shape(node.outputs[0])
    matrix = ctx.weights(b, "weight")
    matrix = matrix if transposed else np.ascontiguousarray(matrix.T)
    weights: dict[str, Weight] = {"weight": matrix * np.float32(alpha)}
    params: dict[int, Param] = {0: matrix.shape[0], 2: matrix.size}
    if bias is not None:
        params[1] = 1
        weights["bias"] = bias
    stored, source = codes_of(b), a
    axis = 0 if transposed else 1
    found = None
    if not trans_a:
        found = integers_of(a, stored, matrix.shape[0], axis=axis)
    if found is not None:
        source, record, codes = found
        record.weight_scales = (record.weight_scales * np.float32(alpha)).astype(np.float32)
        if alpha <= 0:
            found = None
        weights["weight"] = codes if transposed else np.ascontiguousarray(codes.T)
    if found is None:
        source = a
        weights["weight"] = matrix * np.float32(alpha)
    if trans_a:
        blob = _matrix(ctx, source, transposed=True, index=0)
    else:
        blob = ctx.blob(source)
    rows = blob
    if len(blob.shape) > 2 or (len(blob.shape) == 1 and blob.size != matrix.shape[1]):
        rows = ctx.reshape(blob, (blob.size // matrix.shape[1], matrix.shape[1]), "rows")
    shape: Shape = (matrix.shape[0],)
    if len(rows.shape) == 2:
        shape = (rows.shape[0], matrix.shape[0])
    draft = ctx.draft("InnerProduct", [rows], params, shapes=[shape], weights=weights)
    if found is not None:
        draft.integers = found[1]
    elif activation_of(a) is not None or stored is not None:
        why = why_float(activation_of(a), stored, axis=axis)
        draft.details["float"] = why or "its input is transposed"
    result = draft.output
    if result.size != int(np.prod(out)):
        raise Refusal(f"ncnn gives {result.shape} for {list(out)}")
    ctx.bind(node.outputs[0], result)


@lowers("MatMul", to="InnerProduct, MatMul")
def _matmul(ctx: Context, node: ir.Node) -> None:
    """MatMul as numpy does it."""
    a, b = node.inputs[0], node.inputs[1]
    left, right = ctx.shape(a), ctx.shape(b)
    known = ctx.constant(b)
    if known is not None and known.ndim == 2 and left and ctx.constant(a) is None:
        _inner_product(ctx, node, b, transposed=False)
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

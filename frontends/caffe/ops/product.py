"""Layers that are matrix products or look-ups."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx_ir as ir

from qconvert.frontends.caffe.convert import Context, converts

if TYPE_CHECKING:
    from collections.abc import Sequence


def _outputs(ctx: Context, outputs: int) -> int:
    """num_output, checked."""
    if not 1 <= outputs < 1 << 31:
        raise ctx.error(f"{ctx.layer.type} has num_output {outputs}", "it is at least 1")
    return outputs


@converts("InnerProduct")
def _inner_product(ctx: Context) -> Sequence[ir.Value]:
    """InnerProduct → Flatten and Gemm; everything from `axis` on is one vector.

    The weight is [outputs, inputs], or [inputs, outputs] with `transpose`. Axes before `axis`
    stay in the top's shape (inner_product_layer.cpp, Reshape).
    """
    ctx.expect_inputs(1)
    param = ctx.params.inner_product_param
    shape, axis = ctx.shape(), ctx.axis(param.axis)
    outputs = _outputs(ctx, param.num_output)
    rows, inputs = math.prod(shape[:axis]), math.prod(shape[axis:])
    ctx.expect_blobs(2 if param.bias_term else 1)
    weight_shape = (inputs, outputs) if param.transpose else (outputs, inputs)
    operands = [ctx.constant("weight", ctx.weight(0, weight_shape))]
    if param.bias_term:
        operands.append(ctx.constant("bias", ctx.weight(1, (outputs,))))
    x = ctx.x
    if len(shape) != 2 or axis != 1:
        x = ctx.op("Flatten", [x], {"axis": axis}, shape=(rows, inputs), part="flatten")
    top = (*shape[:axis], outputs)
    part = "" if len(top) == 2 else "gemm"
    attributes = {"transB": 0 if param.transpose else 1}
    result = ctx.op("Gemm", [x, *operands], attributes, shape=(rows, outputs), part=part)
    return [result if len(top) == 2 else ctx.reshape(result, top)]


@converts("Embed")
def _embed(ctx: Context) -> Sequence[ir.Value]:
    """Embed, a row of a table per index → Cast, Gather (and Add)."""
    ctx.expect_inputs(1)
    param = ctx.params.embed_param
    outputs = _outputs(ctx, param.num_output)
    ctx.expect_blobs(2 if param.bias_term else 1)
    table = ctx.constant("weight", ctx.weight(0, (param.input_dim, outputs)))
    index = ctx.cast(ctx.x, ir.DataType.INT64, "index")
    shape = (*ctx.shape(), outputs)
    part = "gather" if param.bias_term else ""
    rows = ctx.op("Gather", [table, index], {"axis": 0}, shape=shape, part=part)
    if not param.bias_term:
        return [rows]
    bias = ctx.constant("bias", ctx.weight(1, (outputs,)))
    return [ctx.op("Add", [rows, bias], shape=shape)]


@converts("BatchReindex")
def _batch_reindex(ctx: Context) -> Sequence[ir.Value]:
    """BatchReindex, entries of the first axis by index → Cast and Gather."""
    ctx.expect_inputs(2)
    if len(ctx.shape(1)) != 1:
        raise ctx.error("BatchReindex needs a list of indices", f"its shape is {ctx.shape(1)}")
    index = ctx.cast(ctx.inputs[1], ir.DataType.INT64, "index")
    shape = (*ctx.shape(1), *ctx.shape()[1:])
    return [ctx.op("Gather", [ctx.x, index], {"axis": 0}, shape=shape)]

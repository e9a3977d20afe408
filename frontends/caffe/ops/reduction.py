"""Layers that normalize or summarize along axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx_ir as ir

from qconvert.frontends.caffe import caffe_pb2 as pb
from qconvert.frontends.caffe.convert import Context, converts
from qconvert.graph import shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence


@converts("Softmax")
def _softmax(ctx: Context) -> Sequence[ir.Value]:
    """Softmax → Softmax; axis 1 unless the layer says otherwise."""
    ctx.expect_inputs(1)
    axis = ctx.axis(ctx.params.softmax_param.axis)
    return [ctx.op("Softmax", [ctx.x], {"axis": axis}, shape=ctx.shape())]


@converts("Reduction")
def _reduction(ctx: Context) -> Sequence[ir.Value]:
    """Reduction of every axis from `axis` on → ReduceSum, ReduceL1, ReduceSumSquare, ReduceMean."""
    ctx.expect_inputs(1)
    param, shape = ctx.params.reduction_param, ctx.shape()
    first = ctx.axis(param.axis)
    kind = {
        pb.Reduction.SUM: "ReduceSum",
        pb.Reduction.ASUM: "ReduceL1",
        pb.Reduction.SUMSQ: "ReduceSumSquare",
        pb.Reduction.MEAN: "ReduceMean",
    }[param.operation]
    axes = ctx.integers("axes", range(first, len(shape)))
    if not math.isfinite(param.coeff):
        raise ctx.error(f"Reduction has the coefficient {param.coeff}")
    part = "" if param.coeff == 1 else "reduce"
    result = ctx.op(kind, [ctx.x, axes], {"keepdims": 0}, shape=shape[:first], part=part)
    if param.coeff == 1:
        return [result]
    factor = ctx.scalar("coeff", param.coeff)
    return [ctx.op("Mul", [result, factor], shape=shape[:first])]


@converts("ArgMax")
def _argmax(ctx: Context) -> Sequence[ir.Value]:
    """ArgMax → ArgMax or TopK, and Cast: Caffe's indices are floats.

    Of equal values the one with the *larger* index comes first: Caffe sorts pairs of value and
    index in falling order (argmax_layer.cpp, Forward_cpu).
    """
    ctx.expect_inputs(1)
    param, shape = ctx.params.argmax_param, ctx.shape()
    x, axis = ctx.x, 1
    if param.HasField("axis"):
        axis = ctx.axis(param.axis)
    else:
        shape = (shape[0], math.prod(shape[1:]))
        x = ctx.op("Flatten", [x], {"axis": 1}, shape=shape, part="flatten")
    size, count = shape[axis], param.top_k
    if not 1 <= count <= size:
        raise ctx.error(f"ArgMax has top_k {count}", f"it chooses from {size}")
    values, indices = _best(ctx, x, axis, count)
    if param.HasField("axis"):
        return [_named(ctx, values if param.out_max_val else indices)]
    kept = (shape[0], 1, count)
    if not param.out_max_val:
        return [_top(ctx, [indices], max(len(ctx.shape()), 3), kept)]
    return [_top(ctx, [indices, values], max(len(ctx.shape()), 3), kept)]


def _named(ctx: Context, value: ir.Value) -> ir.Value:
    """The layer's own node around a helper's result."""
    return ctx.op("Identity", [value], shape=shape_of(value))


def _top(
    ctx: Context, columns: Sequence[ir.Value], rank: int, kept: tuple[int, int, int]
) -> ir.Value:
    """[N, k] columns as the layer's top [N, columns, k] (then ones up to the bottom's rank)."""
    rows = [ctx.reshape(value, kept, f"row{index}") for index, value in enumerate(columns)]
    top = (kept[0], len(rows), kept[2], *[1] * (rank - 3))
    if len(rows) == 1:
        return ctx.reshape(rows[0], top)
    joined = ctx.op("Concat", rows, {"axis": 1}, shape=top[:3], part="join")
    return ctx.reshape(joined, top)


def _best(ctx: Context, x: ir.Value, axis: int, count: int) -> tuple[ir.Value, ir.Value]:
    """The `count` largest along `axis`, and their indices as floats."""
    shape = shape_of(x)
    size, kept = shape[axis], [*shape]
    kept[axis] = count
    # TopK prefers the smaller index among equals; on the reversed axis that is the larger one.
    ends = (("starts", [-1]), ("ends", [-size - 1]), ("axes", [axis]), ("steps", [-1]))
    cut = [ctx.integers(part, numbers) for part, numbers in ends]
    back = ctx.op("Slice", [x, *cut], shape=shape, part="reverse")
    values, places = ctx.ops(
        "TopK",
        [back, ctx.integers("top_k", [count])],
        {"axis": axis, "largest": 1, "sorted": 1},
        shapes=[kept, kept],
        part="topk",
    )
    places.type = ir.TensorType(ir.DataType.INT64)
    floats = ctx.cast(places, ir.DataType.FLOAT, "places")
    last = ctx.scalar("last", size - 1)
    return values, ctx.op("Sub", [last, floats], shape=kept, part="index")

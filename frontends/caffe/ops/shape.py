"""Layers that only change a shape, and the one that is only a weight."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qconvert.frontends.caffe.convert import Context, converts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir


@converts("Flatten")
def _flatten(ctx: Context) -> Sequence[ir.Value]:
    """Flatten, axes `axis` to `end_axis` as one → Flatten, or Reshape where that cannot say it."""
    ctx.expect_inputs(1)
    param, shape = ctx.params.flatten_param, ctx.shape()
    first, last = ctx.axis(param.axis), ctx.axis(param.end_axis)
    if last < first:
        raise ctx.error(f"Flatten goes from axis {param.axis} back to {param.end_axis}")
    top = (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])
    if len(top) == 2 and first == 1:
        return [ctx.op("Flatten", [ctx.x], {"axis": 1}, shape=top)]
    return [ctx.reshape(ctx.x, top)]


@converts("Reshape")
def _reshape(ctx: Context) -> Sequence[ir.Value]:
    """Reshape → Reshape; 0 copies an axis, one -1 takes what is left (reshape_layer.cpp).

    `axis` and `num_axes` choose which axes are replaced; 0 copies relative to `axis`.
    """
    ctx.expect_inputs(1)
    param, shape = ctx.params.reshape_param, ctx.shape()
    dims = list(param.shape.dim)
    # A negative axis counts from one past the last: -1 appends (reshape_layer.cpp, Reshape).
    first = param.axis if param.axis >= 0 else param.axis + len(shape) + 1
    if not 0 <= first <= len(shape):
        raise ctx.error(f"Reshape works on axis {param.axis}", f"its bottom is {list(shape)}")
    last = len(shape) if param.num_axes == -1 else first + param.num_axes
    if not first <= last <= len(shape):
        raise ctx.error(f"Reshape has num_axes {param.num_axes}", f"its bottom is {list(shape)}")
    for index, dim in enumerate(dims):
        if dim == 0:
            if first + index >= len(shape):
                raise ctx.error("Reshape copies an axis that its bottom does not have")
            dims[index] = shape[first + index]
    return [ctx.reshape(ctx.x, _inferred(ctx, [*shape[:first], *dims, *shape[last:]]))]


def _inferred(ctx: Context, dims: list[int]) -> list[int]:
    """`dims` with its one -1 filled in."""
    total = math.prod(ctx.shape())
    known = math.prod(dim for dim in dims if dim != -1)
    if dims.count(-1) > 1 or any(dim < -1 or dim == 0 for dim in dims):
        raise ctx.error(f"Reshape to {dims}", "dimensions are 0, one -1, or above 0")
    if -1 in dims:
        dims = [total // known if dim == -1 else dim for dim in dims]
    if dims and dims[0] > 1 and math.prod(dims) == total * dims[0] and ctx.shape()[:1] == (1,):
        ctx.report.warn(f"{ctx.layer.where}: the batch of {dims[0]} it writes down becomes 1")
        dims = [1, *dims[1:]]
    if math.prod(dims) != total:
        raise ctx.error(
            f"Reshape to {dims} does not fit",
            f"its bottom is {list(ctx.shape())} (qconvert fixes the batch at 1)",
            "write the batch dimension as 0, and one other as -1",
        )
    return dims


@converts("Parameter")
def _parameter(ctx: Context) -> Sequence[ir.Value]:
    """Parameter, a weight as a blob → an initializer."""
    shape = tuple(ctx.params.parameter_param.shape.dim)
    ctx.expect_blobs(1)
    return [ctx.op("Identity", [ctx.constant("weight", ctx.weight(0, shape))], shape=shape)]

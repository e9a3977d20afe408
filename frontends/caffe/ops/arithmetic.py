"""Element-wise arithmetic of blobs with blobs, or with weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qconvert.frontends.caffe import caffe_pb2 as pb
from qconvert.frontends.caffe.convert import Context, converts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.frontends.caffe.convert import Shape


@converts("Eltwise")
def _eltwise(ctx: Context) -> Sequence[ir.Value]:
    """Eltwise → a chain of Mul or Add, or Max; coefficients of a sum become Mul, -1 becomes Sub."""
    param, shapes = ctx.params.eltwise_param, {ctx.shape(i) for i in range(len(ctx.inputs))}
    ctx.expect_inputs(2, 1000)
    if len(shapes) != 1:
        raise ctx.error(f"Eltwise of the shapes {', '.join(map(str, sorted(shapes)))}")
    coeff = list(param.coeff)
    if coeff and (len(coeff) != len(ctx.inputs) or param.operation == pb.Eltwise.PROD):
        raise ctx.error(
            f"Eltwise has {len(coeff)} coefficients for {len(ctx.inputs)} bottoms",
            "each bottom has one, and a product has none",
        )
    if not all(math.isfinite(number) for number in coeff):
        raise ctx.error(f"Eltwise has the coefficients {coeff}")
    if param.operation == pb.Eltwise.MAX:
        return [ctx.op("Max", ctx.inputs, shape=ctx.shape())]
    if param.operation == pb.Eltwise.PROD:
        return [_chain(ctx, ["Mul"] * len(ctx.inputs), ctx.inputs)]
    return [_sum(ctx, coeff or [1.0] * len(ctx.inputs))]


def _sum(ctx: Context, coeff: Sequence[float]) -> ir.Value:
    """The weighted sum."""
    kinds, values = [], []
    for index, (value, number) in enumerate(zip(ctx.inputs, coeff, strict=True)):
        subtract = number == -1 and index > 0
        kinds.append("Sub" if subtract else "Add")
        if number == 1 or subtract:
            values.append(value)
            continue
        factor = ctx.scalar(f"coeff{index}", number)
        values.append(ctx.op("Mul", [value, factor], shape=ctx.shape(), part=f"coeff{index}"))
    return _chain(ctx, kinds, values)


def _chain(ctx: Context, kinds: Sequence[str], values: Sequence[ir.Value]) -> ir.Value:
    """Fold `values` from the left; `kinds[i]` joins `values[i]` to what is before it."""
    result, last = values[0], len(values) - 1
    for index in range(1, len(values)):
        part = "" if index == last else f"part{index}"
        result = ctx.op(kinds[index], [result, values[index]], shape=ctx.shape(), part=part)
    return result


@dataclass(frozen=True, slots=True)
class _Broadcast:
    """How a smaller shape stands against the bottom's.

    Attributes:
        own: The operand's shape in Caffe.
        full: The same with ones behind, so that ONNX broadcasts it.
    """

    own: Shape
    full: Shape


def _broadcast(ctx: Context, axis: int, num_axes: int) -> _Broadcast:
    """The shape of a weight that covers `num_axes` axes from `axis` on (-1: all)."""
    shape = ctx.shape()
    first = ctx.axis(axis)
    last = len(shape) if num_axes == -1 else first + num_axes
    if not first <= last <= len(shape):
        raise ctx.error(
            f"{ctx.layer.type} covers {num_axes} axes from axis {axis}",
            f"its bottom has {len(shape)}",
        )
    own = shape[first:last]
    # A weight for no axis at all is one number.
    return _Broadcast(own, (*own, *[1] * (len(shape) - last)) if own else ())


def _other(ctx: Context, axis: int) -> ir.Value:
    """The second bottom, ready to be broadcast from `axis` on."""
    shape, other = ctx.shape(), ctx.shape(1)
    first = ctx.axis(axis) if other else 0
    last = first + len(other)
    if other != shape[first:last]:
        raise ctx.error(
            f"{ctx.layer.type} of the shapes {list(shape)} and {list(other)}",
            f"the second must be the first's axes from {axis} on",
        )
    if last == len(shape) or not other:
        return ctx.inputs[1]
    return ctx.reshape(ctx.inputs[1], (*other, *[1] * (len(shape) - last)), "broadcast")


@converts("Scale")
def _scale(ctx: Context) -> Sequence[ir.Value]:
    """Scale by a weight or by the second bottom → Mul (and Add for its bias)."""
    ctx.expect_inputs(1, 2)
    param = ctx.params.scale_param
    biased = 1 if param.bias_term else 0
    if len(ctx.inputs) == 1:
        shape = _broadcast(ctx, param.axis, param.num_axes)
        ctx.expect_blobs(1 + biased)
        weight = ctx.weight(0, shape.own).reshape(shape.full)
        factor, blob = ctx.constant("weight", weight), 1
    else:
        other = ctx.shape(1)
        shape = _broadcast(ctx, param.axis, len(other)) if other else _Broadcast((), ())
        factor, blob = _other(ctx, param.axis), 0
    part = "scale" if biased else ""
    result = ctx.op("Mul", [ctx.x, factor], shape=ctx.shape(), part=part)
    if not biased:
        return [result]
    if blob == 0:
        ctx.expect_blobs(1)
    bias = ctx.constant("bias", ctx.weight(blob, shape.own).reshape(shape.full))
    return [ctx.op("Add", [result, bias], shape=ctx.shape())]


@converts("Bias")
def _bias(ctx: Context) -> Sequence[ir.Value]:
    """Bias by a weight or by the second bottom → Add."""
    ctx.expect_inputs(1, 2)
    param = ctx.params.bias_param
    if len(ctx.inputs) == 2:
        return [ctx.op("Add", [ctx.x, _other(ctx, param.axis)], shape=ctx.shape())]
    shape = _broadcast(ctx, param.axis, param.num_axes)
    ctx.expect_blobs(1)
    bias = ctx.constant("bias", ctx.weight(0, shape.own).reshape(shape.full))
    return [ctx.op("Add", [ctx.x, bias], shape=ctx.shape())]


@converts("Axpy")
def _axpy(ctx: Context) -> Sequence[ir.Value]:
    """Axpy, scale per channel * x + y → Mul and Add; bottoms are scale, x, y (SENet)."""
    ctx.expect_inputs(3)
    scale, x, y = ctx.shape(0), ctx.shape(1), ctx.shape(2)
    if x != y or len(x) < 2 or scale[:2] != x[:2] or math.prod(scale[2:]) != 1:
        raise ctx.error(
            f"Axpy of the shapes {list(scale)}, {list(x)} and {list(y)}",
            "the first has one number per channel, the others are alike",
        )
    factor, full = ctx.inputs[0], (*x[:2], *[1] * (len(x) - 2))
    if scale != full:
        factor = ctx.reshape(factor, full, "broadcast")
    product = ctx.op("Mul", [ctx.inputs[1], factor], shape=x, part="scale")
    return [ctx.op("Add", [product, ctx.inputs[2]], shape=x)]

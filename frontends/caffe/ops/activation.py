"""Element-wise functions of one bottom."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from qconvert.frontends.caffe.convert import Context, converts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qconvert.frontends.caffe.convert import Attribute


def _unary(
    ctx: Context, op_type: str, attributes: dict[str, Attribute] | None = None
) -> Sequence[ir.Value]:
    """One node that keeps the shape."""
    ctx.expect_inputs(1)
    return [ctx.op(op_type, [ctx.x], attributes, shape=ctx.shape())]


def _finite(ctx: Context, name: str, number: float) -> float:
    """A parameter that must be a number."""
    if not math.isfinite(number):
        raise ctx.error(f"{name} is {number}", "a parameter is a finite number")
    return number


def _affine(
    ctx: Context, x: ir.Value, scale: float, shift: float, *, last: bool
) -> tuple[ir.Value, bool]:
    """`scale * x + shift`, without what does nothing; whether anything was written.

    Args:
        ctx: The layer.
        x: Any value of the layer's shape.
        scale: Factor.
        shift: Summand.
        last: Whether the result is the layer's own.
    """
    steps = [("Mul", "scale", scale)] * (scale != 1) + [("Add", "shift", shift)] * (shift != 0)
    for index, (op_type, part, number) in enumerate(steps):
        own = last and index == len(steps) - 1
        operand = ctx.scalar(part, _finite(ctx, part, number))
        x = ctx.op(op_type, [x, operand], shape=ctx.shape(), part="" if own else part)
    return x, bool(steps)


@converts("AbsVal")
def _absval(ctx: Context) -> Sequence[ir.Value]:
    """AbsVal → Abs."""
    return _unary(ctx, "Abs")


@converts("BNLL")
def _bnll(ctx: Context) -> Sequence[ir.Value]:
    """BNLL, log(1 + exp(x)) → Softplus."""
    return _unary(ctx, "Softplus")


@converts("ELU")
def _elu(ctx: Context) -> Sequence[ir.Value]:
    """ELU → Elu."""
    return _unary(ctx, "Elu", {"alpha": ctx.params.elu_param.alpha})


@converts("Sigmoid")
def _sigmoid(ctx: Context) -> Sequence[ir.Value]:
    """Sigmoid → Sigmoid."""
    return _unary(ctx, "Sigmoid")


@converts("TanH")
def _tanh(ctx: Context) -> Sequence[ir.Value]:
    """TanH → Tanh."""
    return _unary(ctx, "Tanh")


@converts("ReLU")
def _relu(ctx: Context) -> Sequence[ir.Value]:
    """ReLU → Relu, or LeakyRelu where it has a negative slope."""
    slope = ctx.params.relu_param.negative_slope
    if slope == 0:
        return _unary(ctx, "Relu")
    return _unary(ctx, "LeakyRelu", {"alpha": _finite(ctx, "negative_slope", slope)})


@converts("ReLU6")
def _relu6(ctx: Context) -> Sequence[ir.Value]:
    """ReLU6 → Clip to [0, n]; n is 6 unless OpenVINO's fork says otherwise."""
    if ctx.params.relu6_param.negative_slope != 0:
        raise ctx.unsupported("ReLU6 has a negative slope", "no runtime has such a layer")
    return _clip(ctx, 0.0, ctx.params.relu6_param.n)


@converts("Clip")
def _clip_layer(ctx: Context) -> Sequence[ir.Value]:
    """Clip → Clip."""
    limits = ctx.params.clip_param
    if not (limits.HasField("min") and limits.HasField("max")):
        raise ctx.error("Clip lacks a limit", "clip_param has min and max, both required")
    return _clip(ctx, limits.min, limits.max)


def _clip(ctx: Context, low: float, high: float) -> Sequence[ir.Value]:
    """Clip to a closed range."""
    ctx.expect_inputs(1)
    if not low <= high:
        raise ctx.error(f"{ctx.layer.type} clips to [{low}, {high}]", "the range is empty")
    limits = [ctx.scalar("min", low), ctx.scalar("max", high)]
    return [ctx.op("Clip", [ctx.x, *limits], shape=ctx.shape())]


@converts("PReLU")
def _prelu(ctx: Context) -> Sequence[ir.Value]:
    """PReLU → PRelu; slope [C, 1, 1], or [1] where channels share it."""
    ctx.expect_inputs(1)
    ctx.expect_blobs(1)
    shape = ctx.shape()
    if ctx.params.prelu_param.channel_shared:
        slope = ctx.weight(0, (1,))
    else:
        channels = shape[1] if len(shape) > 1 else 1
        slope = ctx.weight(0, (channels,))
        slope = slope.reshape(channels, *[1] * max(len(shape) - 2, 0))
    return [ctx.op("PRelu", [ctx.x, ctx.constant("slope", slope)], shape=shape)]


@converts("Swish")
def _swish(ctx: Context) -> Sequence[ir.Value]:
    """Swish, x * sigmoid(beta * x) → Sigmoid and Mul."""
    ctx.expect_inputs(1)
    beta = ctx.params.swish_param.beta
    scaled, _ = _affine(ctx, ctx.x, beta, 0.0, last=False)
    gate = ctx.op("Sigmoid", [scaled], shape=ctx.shape(), part="sigmoid")
    return [ctx.op("Mul", [ctx.x, gate], shape=ctx.shape())]


@converts("Threshold")
def _threshold(ctx: Context) -> Sequence[ir.Value]:
    """Threshold, 1 where x > t, else 0 → Greater and Cast."""
    ctx.expect_inputs(1)
    limit = ctx.scalar("threshold", ctx.params.threshold_param.threshold)
    mask = ctx.op("Greater", [ctx.x, limit], shape=ctx.shape(), part="greater")
    mask.type = ir.TensorType(ir.DataType.BOOL)
    return [ctx.cast(mask, ir.DataType.FLOAT, "")]


@converts("Power")
def _power(ctx: Context) -> Sequence[ir.Value]:
    """Power, (shift + scale * x) ^ power → Mul, Add and Pow, as far as they do something.

    power 0 is 1 and scale 0 is a constant in Caffe as well (power_layer.cpp, Forward_cpu).
    """
    ctx.expect_inputs(1)
    param = ctx.params.power_param
    plain = param.power == 1
    x, written = _affine(ctx, ctx.x, param.scale, param.shift, last=plain)
    if not plain:
        exponent = ctx.scalar("power", _finite(ctx, "power", param.power))
        return [ctx.op("Pow", [x, exponent], shape=ctx.shape())]
    return [x] if written else _unary(ctx, "Identity")


@converts("Exp")
def _exp(ctx: Context) -> Sequence[ir.Value]:
    """Exp, base ^ (shift + scale * x) → Mul, Add and Exp; base -1 stands for e."""
    ctx.expect_inputs(1)
    param = ctx.params.exp_param
    factor = _log_base(ctx, param.base)
    x, _ = _affine(ctx, ctx.x, param.scale * factor, param.shift * factor, last=False)
    return [ctx.op("Exp", [x], shape=ctx.shape())]


@converts("Log")
def _log(ctx: Context) -> Sequence[ir.Value]:
    """Log, log_base(shift + scale * x) → Mul, Add, Log and Mul; base -1 stands for e."""
    ctx.expect_inputs(1)
    param = ctx.params.log_param
    factor = _log_base(ctx, param.base)
    x, _ = _affine(ctx, ctx.x, param.scale, param.shift, last=False)
    if factor == 1:
        return [ctx.op("Log", [x], shape=ctx.shape())]
    if factor == 0:
        raise ctx.error("Log has base 1", "there is no logarithm to base 1")
    logarithm = ctx.op("Log", [x], shape=ctx.shape(), part="log")
    factors = ctx.constant("factor", np.array(1 / factor, np.float32))
    return [ctx.op("Mul", [logarithm, factors], shape=ctx.shape())]


def _log_base(ctx: Context, base: float) -> float:
    """ln(base), where -1 stands for e."""
    if base == -1:
        return 1.0
    if not 0 < base < math.inf:
        raise ctx.error(f"{ctx.layer.type} has base {base}", "a base is -1 (for e) or above 0")
    return math.log(base)


@converts("Dropout", "Split")
def _pass_through(ctx: Context) -> Sequence[ir.Value]:
    """Dropout and Split do nothing to a value in a deployed net."""
    ctx.expect_inputs(1)
    return [ctx.x] * len(ctx.layer.tops)

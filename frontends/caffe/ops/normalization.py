"""Normalization layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.frontends.caffe import caffe_pb2 as pb
from qconvert.frontends.caffe.convert import Context, converts
from qconvert.frontends.caffe.ops.pooling import Window, average_pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.frontends.caffe.weights import F32


@converts("BatchNorm")
def _batch_norm(ctx: Context) -> Sequence[ir.Value]:
    """BatchNorm → BatchNormalization with scale 1 and bias 0.

    The blobs are sums: mean and variance are to be divided by the third, and are 0 where that is 0
    (batch_norm_layer.cpp, Forward_cpu). NVCaffe's `scale_bias` adds gamma and beta. With
    `use_global_stats: false` Caffe takes the statistics of the batch in every phase; for one image
    that is InstanceNormalization.
    """
    ctx.expect_inputs(1)
    param, shape = ctx.params.batch_norm_param, ctx.shape()
    if len(shape) < 2:
        raise ctx.unsupported(f"BatchNorm of a bottom of shape {list(shape)}")
    channels = shape[1]
    count = ctx.expect_blobs(*((5, 3) if param.scale_bias else (3, 5)))
    gamma, beta = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    if count == 5:
        gamma, beta = ctx.weight(3, (channels,)), ctx.weight(4, (channels,))
    if param.HasField("use_global_stats") and not param.use_global_stats:
        return [_instance_norm(ctx, gamma, beta)]
    mean = ctx.weight(0, (channels,))
    variance = ctx.weight(1, (channels,), positive=True)
    factor = float(ctx.weight(2, (1,), positive=True)[0])
    scale = np.float32(0 if factor == 0 else 1 / factor)
    return [_batch_normalization(ctx, (gamma, beta, mean * scale, variance * scale), param.eps)]


def _batch_normalization(
    ctx: Context, statistics: tuple[F32, F32, F32, F32], eps: float
) -> ir.Value:
    """The node; `statistics` are scale, bias, mean and variance."""
    if not eps >= 0 or statistics[3].min(initial=0) + eps < 0:
        raise ctx.error(
            f"{ctx.layer.type} has a negative variance", "its square root is not a number"
        )
    parts = ("weight", "bias", "mean", "variance")
    operands = [ctx.constant(part, array) for part, array in zip(parts, statistics, strict=True)]
    attributes = {"epsilon": eps}
    return ctx.op("BatchNormalization", [ctx.x, *operands], attributes, shape=ctx.shape())


def _instance_norm(ctx: Context, gamma: F32, beta: F32) -> ir.Value:
    """Statistics of the one image."""
    if len(ctx.shape()) < 3:
        raise ctx.unsupported(
            f"BatchNorm of a bottom of shape {list(ctx.shape())} with use_global_stats: false",
            "the statistics of a batch of one vector are the vector itself",
            "set use_global_stats: true",
        )
    ctx.report.warn(
        f"{ctx.layer.where}: use_global_stats is false, so each image is normalized by its own "
        "statistics, as Caffe does; the trained ones are not used"
    )
    operands = [ctx.constant("weight", gamma), ctx.constant("bias", beta)]
    attributes = {"epsilon": ctx.params.batch_norm_param.eps}
    return ctx.op("InstanceNormalization", [ctx.x, *operands], attributes, shape=ctx.shape())


@converts("BN")
def _bn(ctx: Context) -> Sequence[ir.Value]:
    """BN of the forks → Mul and Add, or BatchNormalization.

    Two blobs are a scale and a shift that hold everything (SegNet, inference mode); four are slope,
    bias, mean and variance (PSPNet).
    """
    ctx.expect_inputs(1)
    shape, param = ctx.shape(), ctx.params.bn_param
    if len(shape) < 2:
        raise ctx.unsupported(f"BN of a bottom of shape {list(shape)}")
    channels = shape[1]
    count = ctx.expect_blobs(2, 4)
    scale, shift = ctx.weight(0, (channels,)), ctx.weight(1, (channels,))
    if count == 4:
        mean, variance = ctx.weight(2, (channels,)), ctx.weight(3, (channels,))
        return [_batch_normalization(ctx, (scale, shift, mean, variance), param.eps)]
    full = (channels, *[1] * (len(shape) - 2))
    factor = ctx.constant("weight", scale.reshape(full))
    product = ctx.op("Mul", [ctx.x, factor], shape=shape, part="scale")
    return [ctx.op("Add", [product, ctx.constant("bias", shift.reshape(full))], shape=shape)]


@converts("LRN")
def _lrn(ctx: Context) -> Sequence[ir.Value]:
    """LRN → LRN across channels; within a channel, x * (1 + alpha * mean of x²) ^ -beta.

    `k` has no effect within a channel (lrn_layer.cpp, LayerSetUp: the power layer's shift is 1).
    """
    ctx.expect_inputs(1)
    param, shape = ctx.params.lrn_param, ctx.shape()
    size = param.local_size
    if size % 2 == 0 or size > 1 << 20:
        raise ctx.error(f"LRN has local_size {size}", "it is odd")
    if len(shape) != 4:
        raise ctx.error(f"LRN works on 4 axes, its bottom has {len(shape)}")
    if param.norm_region == pb.LRN.ACROSS_CHANNELS:
        attributes = {
            "alpha": param.alpha,
            "beta": param.beta,
            "bias": param.k,
            "size": int(size),
        }
        return [ctx.op("LRN", [ctx.x], attributes, shape=shape)]
    half = (size - 1) // 2
    square = ctx.op("Mul", [ctx.x, ctx.x], shape=shape, part="square")
    window = Window((size, size), (1, 1), (half, half))
    mean = average_pool(ctx, square, window, "mean")
    scaled = ctx.op("Mul", [mean, ctx.scalar("alpha", param.alpha)], shape=shape, part="alpha")
    shifted = ctx.op("Add", [scaled, ctx.scalar("one", 1.0)], shape=shape, part="shift")
    power = ctx.op("Pow", [shifted, ctx.scalar("beta", -param.beta)], shape=shape, part="power")
    return [ctx.op("Mul", [ctx.x, power], shape=shape)]


@converts("MVN")
def _mvn(ctx: Context) -> Sequence[ir.Value]:
    """MVN → ReduceMean, Sub, and Div by the standard deviation plus eps (mvn_layer.cpp)."""
    ctx.expect_inputs(1)
    param, shape = ctx.params.mvn_param, ctx.shape()
    first = 1 if param.across_channels else 2
    if not first < len(shape) <= 4:
        raise ctx.unsupported(f"MVN of a bottom of shape {list(shape)}")
    small = (*shape[:first], *[1] * (len(shape) - first))
    axes = ctx.integers("axes", range(first, len(shape)))
    mean = ctx.op("ReduceMean", [ctx.x, axes], shape=small, part="mean")
    if not param.normalize_variance:
        return [ctx.op("Sub", [ctx.x, mean], shape=shape)]
    centred = ctx.op("Sub", [ctx.x, mean], shape=shape, part="centre")
    square = ctx.op("Mul", [centred, centred], shape=shape, part="square")
    variance = ctx.op("ReduceMean", [square, axes], shape=small, part="variance")
    deviation = ctx.op("Sqrt", [variance], shape=small, part="deviation")
    divisor = ctx.op("Add", [deviation, ctx.scalar("eps", param.eps)], shape=small, part="eps")
    return [ctx.op("Div", [centred, divisor], shape=shape)]


@converts("Normalize")
def _normalize(ctx: Context) -> Sequence[ir.Value]:
    """Normalize, x / sqrt(sum of x² + eps) * scale → ReduceSumSquare, Sqrt, Div, Mul (SSD)."""
    ctx.expect_inputs(1)
    param, shape = ctx.params.norm_param, ctx.shape()
    if len(shape) < 2:
        raise ctx.error(f"Normalize of a bottom of shape {list(shape)}")
    last = len(shape) if param.across_spatial else 2
    small = (shape[0], *[1] * (last - 1), *shape[last:])
    axes = ctx.integers("axes", range(1, last))
    total = ctx.op("ReduceSumSquare", [ctx.x, axes], shape=small, part="sum")
    above = ctx.op("Add", [total, ctx.scalar("eps", param.eps)], shape=small, part="eps")
    norm = ctx.op("Sqrt", [above], shape=small, part="norm")
    unit = ctx.op("Div", [ctx.x, norm], shape=shape, part="unit")
    ctx.expect_blobs(1)
    if param.channel_shared:
        scale = ctx.weight(0, (1,))
    else:
        scale = ctx.weight(0, (shape[1],)).reshape(shape[1], *[1] * (len(shape) - 2))
    return [ctx.op("Mul", [unit, ctx.constant("weight", scale)], shape=shape)]

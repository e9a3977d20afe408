"""Convolution and its relatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qconvert.frontends.caffe.convert import MAX_MADE, Context, converts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.frontends.caffe.convert import Attribute, Shape

_LARGEST = 1 << 20  # of kernels, strides, pads and dilations: more is nonsense, and overflows


@dataclass(frozen=True, slots=True)
class _Window:
    """Geometry per spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """The kernel with its holes."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def attributes(self, group: int) -> dict[str, Attribute]:
        """For Conv and ConvTranspose."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.stride),
            "pads": [*self.pad, *self.pad],
            "dilations": list(self.dilation),
            "group": group,
        }


def _window(ctx: Context) -> _Window:
    """kernel_size, stride, pad, dilation: once, once per axis, or as _h and _w.

    base_conv_layer.cpp, LayerSetUp.
    """
    param = ctx.params.convolution_param
    axes = len(ctx.shape()) - 2
    if axes < 1 or ctx.axis(param.axis) != 1:
        raise ctx.unsupported(
            f"{ctx.layer.type} on axis {param.axis} of a bottom with {axes + 2} axes",
            "only channels on axis 1 and at least one spatial axis can be expressed",
        )
    return _Window(
        kernel=_per_axis(ctx, "kernel", param.kernel_size, axes, default=0),
        stride=_per_axis(ctx, "stride", param.stride, axes, default=1),
        pad=_per_axis(ctx, "pad", param.pad, axes, default=0),
        dilation=_per_axis(ctx, "dilation", param.dilation, axes, default=1),
    )


def _per_axis(
    ctx: Context, key: str, values: Sequence[int], axes: int, *, default: int
) -> tuple[int, ...]:
    """One geometry parameter, one number per axis."""
    param = ctx.params.convolution_param
    pair = [f"{key}_h", f"{key}_w"]
    if key != "dilation" and any(param.HasField(name) for name in pair):
        if axes != 2 or values:
            raise ctx.error(
                f"{ctx.layer.type} gives {key}_h and {key}_w",
                "they are for two spatial axes, and not beside the common key",
            )
        found = tuple(getattr(param, name) if param.HasField(name) else default for name in pair)
    elif len(values) <= 1:
        found = (*values, *[default] * (1 - len(values))) * axes
    elif len(values) == axes:
        found = tuple(values)
    else:
        raise ctx.error(
            f"{ctx.layer.type} gives {key} {len(values)} times", f"it has {axes} spatial axes"
        )
    least = 0 if key == "pad" else 1
    if not all(least <= value <= _LARGEST for value in found):
        raise ctx.error(
            f"{ctx.layer.type} has {key} {list(found)}", f"it is at least {least} on every axis"
        )
    return found


def _groups(ctx: Context, channels: int, outputs: int) -> int:
    """The group count; a depthwise layer of a fork has one per channel whatever it says."""
    group = ctx.params.convolution_param.group
    if "epthwise" in ctx.layer.type and outputs % channels == 0:
        group = channels
    if group < 1 or channels % group or outputs % group:
        raise ctx.error(
            f"{ctx.layer.type} has {group} groups",
            f"they do not divide {channels} channels in and {outputs} out",
        )
    return int(group)


def _outputs(ctx: Context) -> int:
    """num_output, checked."""
    outputs = ctx.params.convolution_param.num_output
    if not 1 <= outputs < 1 << 31:
        raise ctx.error(f"{ctx.layer.type} has num_output {outputs}", "it is at least 1")
    return int(outputs)


def _apply(
    ctx: Context, op_type: str, weight_shape: Sequence[int], window: _Window, group: int
) -> Sequence[ir.Value]:
    """Write the node for every bottom; several bottoms share the weights."""
    outputs = _outputs(ctx)
    bias_term = ctx.params.convolution_param.bias_term
    sizes = [
        (1, outputs, *_sizes(ctx, op_type, ctx.shape(index)[2:], window))
        for index in range(len(ctx.inputs))
    ]
    for size in sizes:
        ctx.checked(size)
    ctx.expect_blobs(2 if bias_term else 1)
    operands = [ctx.constant("weight", ctx.weight(0, weight_shape))]
    if bias_term:
        operands.append(ctx.constant("bias", ctx.weight(1, (outputs,))))
    return [
        ctx.op(
            op_type,
            [x, *operands],
            window.attributes(group),
            shape=(ctx.shape(index)[0], *sizes[index][1:]),
            part=str(index) if index else "",
        )
        for index, x in enumerate(ctx.inputs)
    ]


def _sizes(ctx: Context, op_type: str, spatial: Shape, window: _Window) -> list[int]:
    """Spatial sizes of the result (conv_layer.cpp, deconv_layer.cpp: compute_output_shape)."""
    if len(spatial) != len(window.kernel):
        raise ctx.error(f"{ctx.layer.type} has bottoms of different rank")
    axes = zip(spatial, window.extent, window.stride, window.pad, strict=True)
    if op_type == "Conv":
        return [(size + 2 * pad - extent) // stride + 1 for size, extent, stride, pad in axes]
    return [stride * (size - 1) + extent - 2 * pad for size, extent, stride, pad in axes]


def _same_channels(ctx: Context) -> int:
    """The channel count, which all bottoms share."""
    channels = {ctx.shape(index)[1:2] for index in range(len(ctx.inputs))}
    if len(channels) != 1:
        raise ctx.error(f"{ctx.layer.type} has bottoms with different channel counts")
    return ctx.shape()[1]


@converts("Convolution", "ConvolutionDepthwise", "DepthwiseConvolution", "DepthwiseConv")
def _convolution(ctx: Context) -> Sequence[ir.Value]:
    """Convolution → Conv, weight [out, in / group, k...]."""
    window = _window(ctx)
    channels, outputs = _same_channels(ctx), _outputs(ctx)
    group = _groups(ctx, channels, outputs)
    shape = (outputs, channels // group, *window.kernel)
    return _apply(ctx, "Conv", shape, window, group)


@converts("Deconvolution", "DeconvolutionDepthwise", "DepthwiseDeconvolution")
def _deconvolution(ctx: Context) -> Sequence[ir.Value]:
    """Deconvolution → ConvTranspose, weight [in, out / group, k...]."""
    window = _window(ctx)
    channels, outputs = _same_channels(ctx), _outputs(ctx)
    group = _groups(ctx, channels, outputs)
    shape = (channels, outputs // group, *window.kernel)
    return _apply(ctx, "ConvTranspose", shape, window, group)


@converts("Im2col")
def _im2col(ctx: Context) -> Sequence[ir.Value]:
    """Im2col → Conv with one-hot kernels, one group per channel: exact, and runs everywhere."""
    ctx.expect_inputs(1)
    window = _window(ctx)
    channels = ctx.shape()[1]
    taps = math.prod(window.kernel)
    if channels * taps * taps > MAX_MADE:
        raise ctx.unsupported(
            f"Im2col of {channels} channels with a kernel of {taps} numbers",
            "its one-hot kernels would be unreasonably large",
        )
    kernels = np.tile(np.eye(taps, dtype=np.float32), (channels, 1))
    weight = ctx.constant("weight", kernels.reshape(channels * taps, 1, *window.kernel))
    sizes = _sizes(ctx, "Conv", ctx.shape()[2:], window)
    shape = (ctx.shape()[0], channels * taps, *sizes)
    return [ctx.op("Conv", [ctx.x, weight], window.attributes(channels), shape=shape)]

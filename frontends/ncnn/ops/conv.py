"""Convolution and its depthwise, 1-D, 3-D and transposed relatives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.frontends.ncnn.ops.activation import activate, fused_why_not
from qconvert.frontends.ncnn.ops.int8 import input_twin, note_top_scale, weight_twin
from qconvert.frontends.ncnn.ops.window import (
    SAME_LOWER,
    SAME_UPPER,
    Window,
    extents,
    pad,
    paddings,
    same,
)
from qconvert.frontends.ncnn.registry import converts

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Attribute, Builder, Dims

__all__: list[str] = []

_INT8_TERMS: Final = {0, 1, 2, 101, 102}
_RANKS: Final = {
    "Convolution": 2,
    "ConvolutionDepthWise": 2,
    "Convolution1D": 1,
    "ConvolutionDepthWise1D": 1,
    "Convolution3D": 3,
    "ConvolutionDepthWise3D": 3,
}


def _why_not(layer: Layer) -> str | None:
    """Convolutions whose weights are inputs, or of an unknown int8 form."""
    if layer.int(19, 0):
        return "its weight is computed at run time (19=1)"
    if layer.int(8, 0) not in _INT8_TERMS:
        return f"int8_scale_term {layer.int(8, 0)} is not known"
    return fused_why_not(layer)


@converts(*_RANKS, why_not=_why_not)
def _convolution(b: Builder, layer: Layer) -> ir.Value:
    """Conv, x [c, ...]; weight [O, I/groups, ...] as in ONNX.

    Source: src/layer/convolution.cpp and convolutiondepthwise.cpp, with their 1-D and 3-D twins.
    """
    rank = _RANKS[layer.kind]
    window = Window(extents(b, 1, 0, rank), extents(b, 3, 1, rank), extents(b, 2, 1, rank))
    x = _operand(b, rank, window)
    dims = b.dims(x)
    shape, groups = _weight_shape(b, window, dims[0])
    begin, end = _resolve_pads(b, window, dims[1:])
    quantized = bool(layer.int(8, 0))
    fill = layer.float(18, 0.0)
    if quantized:
        x = input_twin(b, x)
        # The border of an int8 convolution is put on the codes, as it stands.
        fill = float(np.trunc(fill)) / float(b.weight("bottom_scale")[0])
    if fill:
        x = pad(b, x, begin, end, fill)
        begin = end = (0,) * rank
    weight = _weight(b, shape, quantized=quantized)
    bias = [b.constant(b.weight("bias"), "bias")] if "bias" in b.weights else []
    attributes: dict[str, Attribute] = {
        "kernel_shape": window.kernel,
        "strides": window.strides,
        "dilations": window.dilations,
        "pads": (*begin, *end),
        "group": groups,
    }
    out = (shape[0], *window.out(b.dims(x)[1:], begin, end))
    y = activate(b, b.emit("Conv", [x, weight, *bias], out, attributes))
    if quantized:
        # The output takes the blob's name when the layer is finished.
        y.name = layer.outputs[0] if len(layer.outputs) == 1 else y.name
        note_top_scale(b, y)
    return y


def _operand(b: Builder, rank: int, window: Window) -> ir.Value:
    """The input as [c, ...]: a vector read by a 1x1 kernel is one pixel of many channels."""
    x = b.input()
    dims = b.dims(x)
    if rank == 2 and len(dims) == 1 and window.kernel == (1, 1):
        return b.reshape(x, (dims[0], 1, 1), "pixel")
    if rank == 2:
        return b.as_image(x)
    if len(dims) != rank + 1:
        raise b.bad(
            f"{b.layer.kind} '{b.layer.name}' reads a blob of {len(dims)} dims",
            f"it works on {rank + 1}",
        )
    return x


def _weight_shape(b: Builder, window: Window, channels: int) -> tuple[Dims, int]:
    """Shape of the weight and number of groups, checked against the input."""
    layer = b.layer
    outputs = b.positive(0, 0)
    groups = b.positive(7, 1) if "DepthWise" in layer.kind else 1
    size = b.weights["weight"].size
    expected = outputs * (channels // groups) * math.prod(window.kernel)
    if outputs % groups or channels % groups or size != expected:
        raise b.bad(
            f"the weight of '{layer.name}' has {size} values",
            f"{outputs} outputs, {channels} input channels, {groups} groups and a kernel of "
            f"{list(window.kernel)} need {expected}",
        )
    return (outputs, channels // groups, *window.kernel), groups


def _resolve_pads(b: Builder, window: Window, size: Dims) -> tuple[Dims, Dims]:
    """Paddings with SAME resolved."""
    begin, end = paddings(b.layer, len(size))
    for mark in (SAME_UPPER, SAME_LOWER):
        if set(begin) == set(end) == {mark}:
            return same(b, window, size, lower=mark == SAME_LOWER)
    if min(*begin, *end) < 0:
        raise b.bad(f"'{b.layer.name}' has a negative padding: {[*begin, *end]}")
    return begin, end


def _weight(b: Builder, shape: Dims, *, quantized: bool) -> ir.Value:
    """The weight, as float32 or behind a DequantizeLinear."""
    if not quantized:
        return b.constant(b.weight("weight").reshape(shape), "weight")
    scales = b.weight("weight_scales")
    # One scale for each output, for each group, or for all.
    per_output = np.repeat(scales, shape[0] // scales.size)
    return weight_twin(b, shape, per_output, axis=0)


def _deconvolution_why_not(layer: Layer) -> str | None:
    """Transposed convolutions whose weights are inputs."""
    return "its weight is computed at run time (28=1)" if layer.int(28, 0) else fused_why_not(layer)


@converts("Deconvolution", "DeconvolutionDepthWise", why_not=_deconvolution_why_not)
def _deconvolution(b: Builder, layer: Layer) -> ir.Value:
    """ConvTranspose, x [c, h, w]; weight [G, O/G, I/G, kh, kw] here, [I, O/G, kh, kw] in ONNX.

    The full output is grown by the output padding, then cut by the padding; or cut to a given
    size, evenly (src/layer/deconvolution.cpp, cut_padding).
    """
    window = Window(extents(b, 1, 0, 2), extents(b, 3, 1, 2), extents(b, 2, 1, 2))
    x = b.as_image(b.input())
    channels, *size = b.dims(x)
    shape, groups = _weight_shape(b, window, channels)
    grouped = b.weight("weight").reshape(
        groups, shape[0] // groups, channels // groups, *window.kernel
    )
    weight = grouped.swapaxes(1, 2).reshape(channels, shape[0] // groups, *window.kernel)
    grown: Dims = (layer.int(19, layer.int(18, 0)), layer.int(18, 0))
    if min(grown) < 0:
        raise b.bad(f"'{layer.name}' has a negative output padding: {list(grown)}")
    rows = zip(size, window.strides, window.extent, grown, strict=True)
    full = tuple((n - 1) * s + e + g for n, s, e, g in rows)
    begin, end = _cuts(b, full)
    out = tuple(n - p - q for n, p, q in zip(full, begin, end, strict=True))
    end, grown = _settle(b, window, end, grown)
    attributes: dict[str, Attribute] = {
        "kernel_shape": window.kernel,
        "strides": window.strides,
        "dilations": window.dilations,
        "pads": (*begin, *end),
        "output_padding": grown,
        "group": groups,
    }
    bias = [b.constant(b.weight("bias"), "bias")] if "bias" in b.weights else []
    operands = [x, b.constant(weight, "weight"), *bias]
    return activate(b, b.emit("ConvTranspose", operands, (shape[0], *out), attributes))


def _settle(b: Builder, window: Window, end: Dims, grown: Dims) -> tuple[Dims, Dims]:
    """Cut behind and growth, set off against each other where ONNX allows no such growth."""
    # By the standard it is max(stride, dilation); onnxruntime goes by the stride where it is 1.
    limits = window.strides
    if all(g < limit for g, limit in zip(grown, limits, strict=True)):
        return end, grown
    less = tuple(min(q, g) for q, g in zip(end, grown, strict=True))
    end = tuple(q - n for q, n in zip(end, less, strict=True))
    grown = tuple(g - n for g, n in zip(grown, less, strict=True))
    if any(g >= limit for g, limit in zip(grown, limits, strict=True)):
        raise b.unsupported(
            f"an output padding of {list(grown)}", f"it has to be less than {limits}"
        )
    return end, grown


def _cuts(b: Builder, full: Dims) -> tuple[Dims, Dims]:
    """What is cut off a full transposed convolution, before and behind."""
    begin, end = paddings(b.layer, 2)
    if max(*begin, *end) > 0 and min(*begin, *end) >= 0:
        return begin, end
    width = b.layer.int(20, 0)
    wanted = (b.layer.int(21, width), width)
    marks = {*begin, *end}
    if min(wanted) <= 0 and marks == {0}:
        return begin, end
    surplus = [n - w for n, w in zip(full, wanted, strict=True)]
    if min(wanted) <= 0 or min(surplus) < 0 or not marks & {SAME_UPPER, SAME_LOWER}:
        raise b.bad(
            f"the size of the output of '{b.layer.name}' is not defined",
            f"padding {[*begin, *end]}, wanted size {list(wanted)}, full size {list(full)}",
        )
    less = tuple(n // 2 for n in surplus)
    more = tuple(n - n // 2 for n in surplus)
    return (less, more) if SAME_UPPER in marks else (more, less)

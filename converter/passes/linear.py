"""What Conv, ConvTranspose and Gemm have in common: y = W x + b, one row of W an output channel.

A factor and an offset per output channel that follow such a layer move into it:

    (W x + b) * f + c  =  (f W) x + (b f + c)

A weight that came quantized is W = s (q - z). A positive factor goes into its scale and leaves
the codes alone, (f s)(q - z); a negative one with z = 0 also flips them, (|f| s)(-q), which is
exact unless a code is the lowest of its type, whose negative does not exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.graph import constant, shape_of
from qconvert.passes.rewrite import known_shape, only_reader, set_constant

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.quant import F32

__all__ = [
    "LINEAR",
    "bias_of",
    "channels",
    "output_axis",
    "scale_outputs",
    "why_not_biased",
    "why_not_linear",
    "why_not_scale",
]

LINEAR: Final = frozenset({"Conv", "ConvTranspose", "Gemm"})

_AXIS: Final = {"Conv": 0, "ConvTranspose": 1}


def _groups(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1)


def output_axis(node: ir.Node) -> int:
    """The axis of the weight that counts output channels (per group in a ConvTranspose)."""
    if node.op_type in _AXIS:
        return _AXIS[node.op_type]
    return 0 if node.attributes.get_int("transB", 0) else 1


def channels(node: ir.Node) -> int:
    """Output channels of a linear layer."""
    return shape_of(node.outputs[0])[1]


def _weight_dequantizer(node: ir.Node) -> ir.Node | None:
    """The DequantizeLinear of constant codes that makes the weight, if that is how it is made."""
    weight = node.inputs[1]
    producer = weight.producer() if weight is not None else None
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    return producer if all(constant(v) is not None for v in producer.inputs if v) else None


def why_not_linear(value: ir.Value | None, reader: ir.Node) -> str | None:
    """Why the layer behind `value` cannot absorb its reader: none there, or other readers."""
    layer = value.producer() if value is not None else None
    if value is None or layer is None or layer.domain or layer.op_type not in LINEAR:
        return "it does not follow a Conv, ConvTranspose or Gemm"
    if not only_reader(value, reader):
        return f"'{layer.name}' has other readers"
    if known_shape(value) is None:
        return f"the shape of '{value.name}' is not known"
    return why_not_biased(layer)


def why_not_biased(layer: ir.Node) -> str | None:
    """Why the bias of `layer` cannot be changed; None when it can."""
    if layer.op_type == "Gemm" and (
        layer.attributes.get_float("alpha", 1.0) != 1.0
        or layer.attributes.get_float("beta", 1.0) != 1.0
    ):
        return f"'{layer.name}' has an alpha or beta"
    if len(layer.inputs) <= 2 or layer.inputs[2] is None:
        return None
    bias = constant(layer.inputs[2])
    if bias is None:
        return f"the bias of '{layer.name}' is computed at run time"
    if bias.size not in (1, channels(layer)):
        return f"the bias of '{layer.name}' is not one number per channel"
    return None


def why_not_scale(node: ir.Node, factor: npt.NDArray[np.float64]) -> str | None:
    """Why `factor` [channels] cannot move into the weight of `node`; None when it can."""
    if not np.isfinite(factor).all():
        return "its factors are not finite"
    if constant(node.inputs[1]) is not None or (factor == 1).all():
        return None
    dequantizer = _weight_dequantizer(node)
    if dequantizer is None:
        return f"the weight of '{node.name}' is computed at run time"
    return _why_not_scale_codes(node, dequantizer, factor)


def _why_not_scale_codes(
    node: ir.Node, dequantizer: ir.Node, factor: npt.NDArray[np.float64]
) -> str | None:
    """The conditions under which quantized weights take a factor exactly."""
    scale = constant(dequantizer.inputs[1])
    assert scale is not None
    axis = output_axis(node)
    if not only_reader(dequantizer.outputs[0], node):
        return f"the quantized weight of '{node.name}' has other readers"
    if scale.ndim > 1 or (scale.size > 1 and _axis_of(dequantizer) != axis):
        return f"the quantized weight of '{node.name}' has scales along another axis"
    if node.op_type == "ConvTranspose" and _groups(node) > 1:
        return f"the quantized weight of '{node.name}' has one scale for several channels"
    return None if (factor >= 0).all() else _why_not_negate(node, dequantizer)


def _why_not_negate(node: ir.Node, dequantizer: ir.Node) -> str | None:
    """Why the codes of a weight cannot change sign."""
    codes = constant(dequantizer.inputs[0])
    zero_point = constant(dequantizer.inputs[2]) if len(dequantizer.inputs) > 2 else None
    if codes is None or codes.dtype.kind != "i" or (zero_point is not None and zero_point.any()):
        return f"a factor is negative and the weight of '{node.name}' has a zero point"
    if codes.size and int(codes.min()) == np.iinfo(codes.dtype.name).min:
        return f"a factor is negative and a weight of '{node.name}' has the lowest code"
    return None


def _axis_of(dequantizer: ir.Node) -> int:
    axis = dequantizer.attributes.get_int("axis", 1)
    return axis % len(shape_of(dequantizer.inputs[0])) if dequantizer.inputs[0] else axis


def scale_outputs(
    node: ir.Node, factor: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]
) -> None:
    """Make `node` compute `y * factor + offset`, both [channels]; see `why_not_scale`."""
    if (factor != 1).any():
        weight = constant(node.inputs[1])
        if weight is not None:
            scaled = weight.astype(np.float64) * _along_outputs(node, factor, weight.ndim)
            with np.errstate(over="ignore"):  # weights of a damaged file: verification tells
                set_constant(node, 1, scaled.astype(np.float32), "weight")
        else:
            _scale_codes(node, factor)
    bias = bias_of(node)
    moved = (bias if bias is not None else np.zeros(factor.size)) * factor + offset
    if bias is not None or moved.any():
        set_constant(node, 2, moved.astype(np.float32), "bias")


def bias_of(node: ir.Node) -> npt.NDArray[np.float64] | None:
    """The constant bias of a linear layer as [channels], None when it has none."""
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None:
        return None
    return np.broadcast_to(bias.astype(np.float64).reshape(-1), (channels(node),))


def _along_outputs(
    node: ir.Node, factor: npt.NDArray[np.float64], ndim: int
) -> npt.NDArray[np.float64]:
    """`factor` [channels], shaped to multiply the weight of `node`."""
    if node.op_type == "ConvTranspose":
        # [I, O/g, kH, kW]: the input channels of group k make its O/g outputs only.
        per_group = factor.reshape(_groups(node), 1, -1)
        weight = node.inputs[1]
        assert weight is not None
        inputs = shape_of(weight)[0]
        rows = np.repeat(per_group, inputs // _groups(node), axis=1)
        return rows.reshape(inputs, -1, *[1] * (ndim - 2))
    shape = [1] * ndim
    shape[output_axis(node)] = -1
    return factor.reshape(shape)


def _scale_codes(node: ir.Node, factor: npt.NDArray[np.float64]) -> None:
    """Move `factor` into the scale of a quantized weight, its signs into the codes."""
    dequantizer = _weight_dequantizer(node)
    assert dequantizer is not None
    codes, scale = constant(dequantizer.inputs[0]), constant(dequantizer.inputs[1])
    assert codes is not None
    assert scale is not None
    axis = output_axis(node)
    signs = np.sign(factor).astype(codes.dtype)
    if (signs != 1).any():
        shape = [1] * codes.ndim
        shape[axis] = -1
        # A factor of 0 clears the codes: a scale must stay positive.
        set_constant(dequantizer, 0, codes * signs.reshape(shape), "codes")
    magnitude = np.where(factor == 0, 1.0, np.abs(factor))
    scales: F32 = (scale.astype(np.float64).reshape(-1) * magnitude).astype(np.float32)
    set_constant(dequantizer, 1, scales, "scale")
    if len(dequantizer.inputs) > 2 and dequantizer.inputs[2] is not None:
        zero_point = constant(dequantizer.inputs[2])
        assert zero_point is not None
        points = np.broadcast_to(zero_point.reshape(-1), scales.shape).copy()
        set_constant(dequantizer, 2, points, "zero_point")
    dequantizer.attributes["axis"] = ir.AttrInt64("axis", axis)

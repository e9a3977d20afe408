"""Dequantize inputs, quantize outputs: how an integer operator becomes a float one between Q/DQ.

An integer operator of onnxruntime computes `quantize(op(dequantize(inputs)))`; written out in
Q/DQ nodes the function is the same, and onnxruntime fuses it back into the operator it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qconvert.frontends.onnx.builder import known_shape
from qconvert.frontends.onnx.registry import Refused
from qconvert.graph import constant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from qconvert.frontends.onnx.call import Call

__all__ = ["bias", "dequantized", "quantized_op", "requantized", "scalar"]


def scalar(call: Call, value: ir.Value, part: str) -> ir.Value:
    """A scale or zero point with one element, as a scalar; others as they are."""
    if known_shape(value) != (1,):
        return value
    return call.helper(part, "Reshape", [value, call.constant(f"{part}_shape", [], np.int64)])


def dequantized(call: Call, first: int, part: str, axis: int | None = None) -> ir.Value:
    """The real values behind codes, scale and zero point at inputs `first` to `first + 2`.

    Args:
        call: The integer operator.
        first: Index of the codes.
        part: Name of the helper nodes.
        axis: Channel axis of per-channel scales.
    """
    codes, scale = call.value(first), scalar(call, call.value(first + 1), f"{part}_scale")
    zero_point = call.input(first + 2)
    if zero_point is not None:
        zero_point = scalar(call, zero_point, f"{part}_zero_point")
    key = (id(codes), id(call.value(first + 1)), id(call.input(first + 2)), axis)
    if key not in call.builder.shared:
        attributes = {} if axis is None or known_shape(scale) == () else {"axis": axis}
        inputs = [codes, scale, zero_point]
        call.builder.shared[key] = call.helper(part, "DequantizeLinear", inputs, attributes)
    return call.builder.shared[key]


def bias(call: Call, index: int, scales: tuple[int, int]) -> ir.Value | None:
    """An int32 bias at scale input * weight as real values; None when there is none.

    Args:
        call: The integer operator.
        index: Of the bias.
        scales: Indices of the input's and the weight's scale.

    Raises:
        Refused: If a scale is computed at run time.
    """
    codes = call.input(index)
    if codes is None:
        return None
    first, second = (constant(call.value(at)) for at in scales)
    if first is None or second is None:
        raise Refused("a scale is computed at run time")
    product = np.asarray(first, np.float32) * np.asarray(second, np.float32)
    per_channel = product.size > 1
    scale = call.constant(
        "bias_scale", product.reshape(-1) if per_channel else product.reshape(()), np.float32
    )
    attributes = {"axis": 0} if per_channel else {}
    return call.helper("bias", "DequantizeLinear", [codes, scale], attributes)


def quantized_op(
    call: Call,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any],
    output: tuple[int, int],
) -> Sequence[ir.Value]:
    """The float operator, and QuantizeLinear behind it.

    Args:
        call: The integer operator; the float one gets its name.
        op_type: The float operator.
        inputs: Its inputs.
        attributes: Its attributes.
        output: Indices of the output's scale and zero point.
    """
    (real,) = call.builder.emit(
        op_type, inputs, attributes, name=call.name, outputs=[f"{call.name}/real"]
    )
    return requantized(call, real, output)


def requantized(call: Call, real: ir.Value, output: tuple[int, int]) -> Sequence[ir.Value]:
    """QuantizeLinear under the name of the call's output."""
    scale = scalar(call, call.value(output[0]), "y_scale")
    zero_point = call.input(output[1])
    if zero_point is not None:
        zero_point = scalar(call, zero_point, "y_zero_point")
    return call.builder.emit(
        "QuantizeLinear",
        [real, scale, zero_point],
        {},
        name=f"{call.name}/quantize",
        outputs=call.outputs,
    )

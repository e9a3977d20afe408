"""ConvInteger and MatMulInteger: sums of integer products.

`y = sum((x - xz) * (w - wz))` in int32 becomes the float operator on codes dequantized with
scale 1, where float32 holds every sum exactly: terms are at most 255 * 255, so up to 258 of them
stay below 2^24. Larger sums keep the integer operator, which is standard ONNX.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from qconvert.frontends.onnx.ops.windows import explicit_window
from qconvert.frontends.onnx.quantized import scalar
from qconvert.frontends.onnx.registry import converts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qconvert.frontends.onnx.call import Call

__all__: list[str] = []

_EXACT_TERMS: Final = 2**24 // (255 * 255)


@converts("ConvInteger")
def _conv_integer(call: Call) -> Sequence[ir.Value]:
    """ConvInteger(x, w, xz, wz)."""
    attributes = explicit_window(call, call.shape(0)[2:], call.shape(1)[2:])
    if math.prod(call.shape(1)[1:]) > _EXACT_TERMS:
        return call.emit(call.inputs, attributes)
    return _as_float(call, "Conv", attributes, axis=0)


@converts("MatMulInteger")
def _matmul_integer(call: Call) -> Sequence[ir.Value]:
    """MatMulInteger(a, b, az, bz)."""
    per_row = call.input(2) is not None and math.prod(call.shape(2)) > 1
    if call.shape(0)[-1] > _EXACT_TERMS or per_row:
        return call.emit(call.inputs, call.plain())
    return _as_float(call, "MatMul", {}, axis=len(call.shape(1)) - 1)


def _as_float(
    call: Call, op_type: str, attributes: Mapping[str, Any], axis: int
) -> Sequence[ir.Value]:
    """The float operator on codes less their zero points, and back to int32."""
    parts = []
    for index, part in enumerate("xw"):
        zero_point = call.input(2 + index)
        inputs: list[ir.Value | None] = [call.value(index), None, None]
        shape: tuple[int, ...] = ()
        if zero_point is not None:
            inputs[2] = scalar(call, zero_point, f"{part}_zero_point")
            shape = () if math.prod(call.shape(2 + index)) == 1 else call.shape(2 + index)
        inputs[1] = call.constant(f"{part}_scale", np.ones(shape), np.float32)
        spread = {"axis": axis} if shape else {}
        parts.append(call.helper(part, "DequantizeLinear", inputs, spread))
    (real,) = call.builder.emit(
        op_type, parts, attributes, name=call.name, outputs=[f"{call.name}/real"]
    )
    return call.builder.emit(
        "Cast",
        [real],
        {"to": int(ir.DataType.INT32)},
        name=f"{call.name}/int32",
        outputs=call.outputs,
    )

"""Constant in all its spellings, and types named in attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from qconvert.frontends.onnx.registry import Refused, converts
from qconvert.frontends.onnx.standard import copy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qconvert.frontends.onnx.call import Call

__all__: list[str] = []

_SPELLINGS: Final[Mapping[str, type[np.generic]]] = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


@converts("Constant")
def _constant(call: Call) -> Sequence[ir.Value]:
    """Constant → an initializer under the name of its output."""
    name = call.outputs[0]
    tensor = call.get("value")
    if tensor is not None:
        return [call.builder.constant(tensor, name)]
    for key, dtype in _SPELLINGS.items():
        value: Any = call.get(key)
        if value is not None:
            return [call.builder.constant(np.asarray(value, dtype=dtype), name)]
    raise Refused("it holds a sparse tensor or strings")


@converts("CastLike")
def _cast_like(call: Call) -> Sequence[ir.Value]:
    """CastLike → Cast, as the type is known."""
    return call.emit([call.value(0)], {"to": int(call.value(1).dtype or 0)}, "Cast")


@converts("QuantizeLinear")
def _quantize_linear(call: Call) -> Sequence[ir.Value]:
    """QuantizeLinear: `precision` (opset 23) is float32 here in any case."""
    _refuse_other_types(call)
    return call.emit(call.inputs, call.plain("precision"))


@converts("DequantizeLinear")
def _dequantize_linear(call: Call) -> Sequence[ir.Value]:
    """DequantizeLinear: `output_dtype` (opset 23) is float32 here in any case."""
    _refuse_other_types(call)
    return call.emit(call.inputs, call.plain("output_dtype"))


def _refuse_other_types(call: Call) -> None:
    """Refuse code types that came after our opset."""
    zero_point = call.input(2)
    if zero_point is not None and zero_point.dtype == ir.DataType.FLOAT4E2M1:
        raise Refused("float4 codes have no equal in our opset")


@converts("Dropout")
def _dropout(call: Call) -> Sequence[ir.Value]:
    """Dropout passes its input through; the mask, where one is read, is all true."""
    if call.input(2) is not None:
        training = call.array(2, "training mode")
        if training.size and bool(training.reshape(-1)[0]):
            raise Refused("it is in training mode")
    results = [call.value(0)]
    if len(call.outputs) > 1:
        dtype: type[np.generic] = np.bool_ if call.version >= 10 else np.float32
        mask = np.ones(call.shape(0), dtype) if call.outputs[1] else np.ones(0, dtype)
        results.append(call.constant("mask", mask, dtype))
    return results


@converts("ConstantOfShape")
def _constant_of_shape(call: Call) -> Sequence[ir.Value]:
    """ConstantOfShape: a wide or narrow float value becomes float32 (`Call.emit`)."""
    return copy(call)

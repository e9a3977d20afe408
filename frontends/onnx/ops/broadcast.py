"""Operators that before opset 7 broadcast only on request, with the axis spelled out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.frontends.onnx.registry import converts
from qconvert.frontends.onnx.standard import copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.frontends.onnx.call import Call

__all__: list[str] = []


@converts("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")
def _binary(call: Call) -> Sequence[ir.Value]:
    """Before opset 7, `axis` says which axis of A the first one of B belongs to."""
    if call.version >= 7:
        return copy(call)
    rank, axis = len(call.shape(0)), call.get("axis")
    second, shape = call.value(1), call.shape(1)
    if axis is not None and call.get("broadcast", 0):
        missing = rank - int(axis) % rank - len(shape)
        if missing > 0:
            column = call.constant("column", [*shape, *[1] * missing], np.int64)
            second = call.helper("column", "Reshape", [second, column])
    return call.emit([call.value(0), second], {})


@converts("PRelu")
def _prelu(call: Call) -> Sequence[ir.Value]:
    """PRelu: before opset 7 a slope [C] belongs to axis 1 of its input."""
    rank, shape = len(call.shape(0)), call.shape(1)
    if call.version >= 7 or len(shape) != 1 or shape == (1,) or rank < 3:
        return copy(call)
    column = call.constant("column", [*shape, *[1] * (rank - 2)], np.int64)
    return call.emit([call.value(0), call.helper("column", "Reshape", [call.value(1), column])], {})


@converts("Gemm")
def _gemm(call: Call) -> Sequence[ir.Value]:
    """Gemm: broadcasting C is the rule from opset 7 on."""
    return call.emit(call.inputs, call.plain("broadcast")) if call.version < 7 else copy(call)

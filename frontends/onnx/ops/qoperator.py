"""QOperator models: onnxruntime's and ONNX's integer operators as float ones between Q/DQ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.frontends.onnx.ops.windows import explicit_window
from qconvert.frontends.onnx.quantized import bias, dequantized, quantized_op
from qconvert.frontends.onnx.registry import CONTRIB, Refused, converts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from qconvert.frontends.onnx.call import Call

__all__: list[str] = []

_BINARY: Final[Mapping[str, str]] = {"QLinearAdd": "Add", "QLinearMul": "Mul"}
_UNARY: Final[Mapping[str, str]] = {"QLinearSigmoid": "Sigmoid", "QLinearLeakyRelu": "LeakyRelu"}


@converts("QLinearConv")
def _qlinear_conv(call: Call) -> Sequence[ir.Value]:
    """QLinearConv(x, xs, xz, w, ws, wz, ys, yz, B): weights per output channel."""
    x, w = dequantized(call, 0, "x"), dequantized(call, 3, "w", axis=0)
    attributes = explicit_window(call, call.shape(0)[2:], call.shape(3)[2:])
    return quantized_op(call, "Conv", [x, w, bias(call, 8, (1, 4))], attributes, (6, 7))


@converts("QLinearMatMul")
@converts("QLinearMatMul", domain=CONTRIB)
def _qlinear_matmul(call: Call) -> Sequence[ir.Value]:
    """QLinearMatMul(a, as, az, b, bs, bz, ys, yz): a per row, b per column."""
    a = dequantized(call, 0, "a", axis=max(len(call.shape(0)) - 2, 0))
    b = dequantized(call, 3, "b", axis=len(call.shape(3)) - 1)
    return quantized_op(call, "MatMul", [a, b], {}, (6, 7))


@converts("QGemm", domain=CONTRIB)
def _qgemm(call: Call) -> Sequence[ir.Value]:
    """QGemm(A, As, Az, B, Bs, Bz, C, Ys, Yz): real values when the output has no scale."""
    a = dequantized(call, 0, "a")
    b = dequantized(call, 3, "b", axis=0 if call.get("transB", 0) else 1)
    attributes = call.plain()
    alpha = float(call.get("alpha", 1.0))
    if call.input(6) is not None and alpha != 1.0:
        raise Refused("its bias is at another scale (alpha is not 1)")
    inputs = [a, b, bias(call, 6, (1, 4))]
    if call.input(7) is None:
        return call.emit(inputs, attributes, "Gemm")
    return quantized_op(call, "Gemm", inputs, attributes, (7, 8))


@converts(*_BINARY, domain=CONTRIB)
def _qlinear_binary(call: Call) -> Sequence[ir.Value]:
    """QLinearAdd, QLinearMul(A, As, Az, B, Bs, Bz, Cs, Cz)."""
    a, b = dequantized(call, 0, "a"), dequantized(call, 3, "b")
    return quantized_op(call, _BINARY[call.op_type], [a, b], {}, (6, 7))


@converts(*_UNARY, domain=CONTRIB)
def _qlinear_unary(call: Call) -> Sequence[ir.Value]:
    """QLinearSigmoid, QLinearLeakyRelu(X, Xs, Xz, Ys, Yz)."""
    x = dequantized(call, 0, "x")
    return quantized_op(call, _UNARY[call.op_type], [x], call.plain(), (3, 4))


@converts("QLinearSoftmax", domain=CONTRIB)
def _qlinear_softmax(call: Call) -> Sequence[ir.Value]:
    """QLinearSoftmax: attribute `opset` says which Softmax it was."""
    axis, rank = int(call.get("axis", -1)), len(call.shape(0))
    axis = axis + rank if axis < 0 else axis
    if int(call.get("opset", 13)) < 13 and axis != rank - 1:
        raise Refused("it is taken over several axes together")
    return quantized_op(call, "Softmax", [dequantized(call, 0, "x")], {"axis": axis}, (3, 4))


@converts("QLinearAveragePool", domain=CONTRIB)
def _qlinear_average_pool(call: Call) -> Sequence[ir.Value]:
    """QLinearAveragePool on [N, C, H, W]."""
    _refuse_channels_last(call)
    window = explicit_window(call, call.shape(0)[2:], call.get("kernel_shape"))
    window.pop("channels_last", None)
    return quantized_op(call, "AveragePool", [dequantized(call, 0, "x")], window, (3, 4))


@converts("QLinearGlobalAveragePool", domain=CONTRIB)
def _qlinear_global_average_pool(call: Call) -> Sequence[ir.Value]:
    """QLinearGlobalAveragePool on [N, C, H, W]."""
    _refuse_channels_last(call)
    return quantized_op(call, "GlobalAveragePool", [dequantized(call, 0, "x")], {}, (3, 4))


def _refuse_channels_last(call: Call) -> None:
    if call.get("channels_last", 0):
        raise Refused("its input is laid out [N, H, W, C]")


@converts("QLinearReduceMean", domain=CONTRIB)
def _qlinear_reduce_mean(call: Call) -> Sequence[ir.Value]:
    """QLinearReduceMean(data, ds, dz, rs, rz)."""
    inputs: list[ir.Value | None] = [dequantized(call, 0, "x")]
    if call.get("axes") is not None:
        inputs.append(call.constant("axes", call.get("axes"), np.int64))
    return quantized_op(call, "ReduceMean", inputs, {"keepdims": call.get("keepdims", 1)}, (3, 4))


@converts("QLinearConcat", domain=CONTRIB)
def _qlinear_concat(call: Call) -> Sequence[ir.Value]:
    """QLinearConcat(Ys, Yz, (X, Xs, Xz)...)."""
    parts = [
        dequantized(call, first, f"x{index}")
        for index, first in enumerate(range(2, len(call.inputs), 3))
    ]
    return quantized_op(call, "Concat", parts, {"axis": call.get("axis")}, (0, 1))


@converts("QLinearWhere", domain=CONTRIB)
def _qlinear_where(call: Call) -> Sequence[ir.Value]:
    """QLinearWhere(condition, X, Xs, Xz, Y, Ys, Yz, Zs, Zz)."""
    x, y = dequantized(call, 1, "x"), dequantized(call, 4, "y")
    return quantized_op(call, "Where", [call.value(0), x, y], {}, (7, 8))


@converts("QuantizeLinear", domain=CONTRIB)
def _quantize_linear(call: Call) -> Sequence[ir.Value]:
    """Onnxruntime's QuantizeLinear, which knew int16 and int4 before the standard did."""
    return call.emit(call.inputs, call.plain(), "QuantizeLinear")


@converts("DequantizeLinear", domain=CONTRIB)
def _dequantize_linear(call: Call) -> Sequence[ir.Value]:
    """Onnxruntime's DequantizeLinear."""
    return call.emit(call.inputs, call.plain(), "DequantizeLinear")


@converts("DynamicQuantizeMatMul", "MatMulIntegerToFloat", domain=CONTRIB)
def _dynamic(call: Call) -> Sequence[ir.Value]:
    """Refused: the scale of an input is found anew for every image."""
    raise Refused(f"{call.op_type} scales its input by the data: quantize the model statically")

"""onnxruntime's fused float operators, written out in standard ones.

Definitions: microsoft/onnxruntime docs/ContribOperators.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qconvert.frontends.onnx.ops.windows import explicit_window
from qconvert.frontends.onnx.registry import CONTRIB, Refused, converts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from qconvert.frontends.onnx.call import Call

__all__: list[str] = []

_ACTIVATION_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Clip": ("min", "max"),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}


@converts("FusedConv", domain=CONTRIB)
def _fused_conv(call: Call) -> Sequence[ir.Value]:
    """FusedConv(X, W, B, Z): a convolution, plus Z, and an activation."""
    window = explicit_window(call, call.shape(0)[2:], call.shape(1)[2:])
    for key in ("activation", "activation_params"):
        window.pop(key, None)
    real = call.helper("conv", "Conv", [*call.inputs[:3]], window)
    if call.input(3) is not None:
        real = call.helper("sum", "Add", [real, call.value(3)])
    return _activated(call, real)


@converts("FusedGemm", domain=CONTRIB)
def _fused_gemm(call: Call) -> Sequence[ir.Value]:
    """FusedGemm(A, B, C): a Gemm and an activation."""
    extra = [key for key in call.attributes if key.startswith("activation")]
    return _activated(call, call.helper("gemm", "Gemm", call.inputs, call.plain(*extra)))


def _activated(call: Call, real: ir.Value) -> Sequence[ir.Value]:
    """The activation of a fused operator, under its name."""
    kind = str(call.get("activation", ""))
    if not kind:
        return call.emit([real], {}, "Identity")
    names = _ACTIVATION_PARAMETERS.get(kind)
    values = list(call.get("activation_params", []))
    if names is None or (values and len(values) != len(names)):
        raise Refused(f"its activation '{kind}' is not known")
    if kind == "Clip":
        bounds = [call.constant(n, v, np.float32) for n, v in zip(names, values, strict=True)]
        return call.emit([real, *bounds], {}, kind)
    attributes: dict[str, Any] = {n: float(v) for n, v in zip(names, values, strict=False)}
    return call.emit([real], attributes, kind)


@converts("FusedMatMul", "TransposeMatMul", domain=CONTRIB)
def _fused_matmul(call: Call) -> Sequence[ir.Value]:
    """FusedMatMul(A, B): alpha * A' B', each with its last two axes swapped on request."""
    if call.get("transBatchA", 0) or call.get("transBatchB", 0):
        raise Refused("it moves the batch axis")
    operands = []
    for index, part in enumerate("AB"):
        value = call.value(index)
        if call.get(f"trans{part}", 0):
            order = list(range(len(call.shape(index))))
            order[-2:] = order[:-3:-1]
            value = call.helper(f"trans{part}", "Transpose", [value], {"perm": order})
        operands.append(value)
    alpha = float(call.get("alpha", 1.0))
    if alpha == 1.0:
        return call.emit(operands, {}, "MatMul")
    product = call.helper("product", "MatMul", operands)
    return call.emit([product, call.constant("alpha", alpha, np.float32)], {}, "Mul")


@converts("Gelu", domain=CONTRIB)
def _gelu(call: Call) -> Sequence[ir.Value]:
    """Gelu is standard from opset 20 on."""
    return call.emit(call.inputs, {}, "Gelu")


@converts("QuickGelu", domain=CONTRIB)
def _quick_gelu(call: Call) -> Sequence[ir.Value]:
    """QuickGelu: x * sigmoid(alpha * x)."""
    alpha = call.constant("alpha", call.get("alpha", 1.702), np.float32)
    gate = call.helper("gate", "Sigmoid", [call.helper("scaled", "Mul", [call.value(0), alpha])])
    return call.emit([call.value(0), gate], {}, "Mul")

"""Experimental operators that files of the opset 7 era hold.

They were taken out of the standard; their definitions are in onnx v1.3 docs/Operators.md and in
onnxruntime's onnxruntime/core/graph/contrib_ops/contrib_defs.cc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.frontends.onnx.registry import Refused, converts
from qconvert.frontends.onnx.standard import copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.frontends.onnx.call import Call

__all__: list[str] = []


@converts("ImageScaler")
def _image_scaler(call: Call) -> Sequence[ir.Value]:
    """ImageScaler: x * scale + bias[channel], x [N, C, H, W]."""
    channels = call.shape(0)[1]
    bias = np.asarray(call.get("bias", [0.0] * channels), dtype=np.float32)
    if bias.size != channels:
        raise Refused(f"it has {bias.size} biases for {channels} channels")
    scale = call.constant("scale", call.get("scale", 1.0), np.float32)
    scaled = call.helper("scaled", "Mul", [call.value(0), scale])
    column = call.constant("bias", bias.reshape(1, channels, 1, 1), np.float32)
    return call.emit([scaled, column], {}, "Add")


@converts("Affine")
def _affine(call: Call) -> Sequence[ir.Value]:
    """Affine: alpha * x + beta."""
    alpha = call.constant("alpha", call.get("alpha", 1.0), np.float32)
    beta = call.constant("beta", call.get("beta", 0.0), np.float32)
    return call.emit([call.helper("scaled", "Mul", [call.value(0), alpha]), beta], {}, "Add")


@converts("Scale")
def _scale(call: Call) -> Sequence[ir.Value]:
    """Scale: x * scale."""
    scale = call.constant("scale", call.get("scale", 1.0), np.float32)
    return call.emit([call.value(0), scale], {}, "Mul")


@converts("Crop")
def _crop(call: Call) -> Sequence[ir.Value]:
    """Crop: `border` is left, top, right, bottom; with `scale` [H, W] the size is given."""
    border = [int(edge) for edge in call.get("border", [])]
    if len(border) != 4:
        raise Refused(f"its border has {len(border)} edges, not 4")
    left, top, right, bottom = border
    _, _, height, width = call.shape(0)
    size = call.get("scale")
    if size:
        low, far = top + int(size[0]), left + int(size[1])
    else:
        low, far = height - bottom, width - right
    if not (0 <= top < low <= height and 0 <= left < far <= width):
        raise Refused("what it cuts out is not inside its input")
    return call.emit(
        [
            call.value(0),
            call.constant("starts", [top, left], np.int64),
            call.constant("ends", [low, far], np.int64),
            call.constant("axes", [2, 3], np.int64),
        ],
        {},
        "Slice",
    )


@converts("ThresholdedRelu")
def _thresholded_relu(call: Call) -> Sequence[ir.Value]:
    """ThresholdedRelu: the same before it became standard in opset 10."""
    return call.emit(call.inputs, call.plain()) if call.version < 10 else copy(call)


@converts("ScaledTanh")
def _scaled_tanh(call: Call) -> Sequence[ir.Value]:
    """ScaledTanh: alpha * tanh(beta * x)."""
    beta = call.constant("beta", call.get("beta", 1.0), np.float32)
    inner = call.helper("scaled", "Mul", [call.value(0), beta])
    alpha = call.constant("alpha", call.get("alpha", 1.0), np.float32)
    return call.emit([call.helper("tanh", "Tanh", [inner]), alpha], {}, "Mul")


@converts("ParametricSoftplus")
def _parametric_softplus(call: Call) -> Sequence[ir.Value]:
    """ParametricSoftplus: alpha * ln(exp(beta * x) + 1)."""
    beta = call.constant("beta", call.get("beta", 1.0), np.float32)
    inner = call.helper("scaled", "Mul", [call.value(0), beta])
    alpha = call.constant("alpha", call.get("alpha", 1.0), np.float32)
    return call.emit([call.helper("softplus", "Softplus", [inner]), alpha], {}, "Mul")

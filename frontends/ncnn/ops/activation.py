"""Activations: as layers, and fused into other layers by parameters 9 and 10."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.frontends.ncnn.registry import converts

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Builder

__all__ = ["activate", "fused_why_not"]

_FUSED_PARAMETERS: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 0, 5: 0, 6: 2}
_FUSED: Final = {1: "Relu", 2: "LeakyRelu", 4: "Sigmoid", 5: "Mish"}
_HARD_SWISH: Final = (np.float32(1 / 6), np.float32(0.5))

_PLAIN: Final = {
    "AbsVal": "Abs",
    "BNLL": "Softplus",
    "Erf": "Erf",
    "Mish": "Mish",
    "Sigmoid": "Sigmoid",
    "Softplus": "Softplus",
    "TanH": "Tanh",
}


def fused_why_not(layer: Layer) -> str | None:
    """Why the activation fused into `layer` cannot be read; None when it can."""
    kind = layer.int(9, 0)
    if kind not in _FUSED_PARAMETERS:
        return f"fused activation {kind} is not known"
    if len(layer.floats(10)) < _FUSED_PARAMETERS[kind]:
        return f"fused activation {kind} needs {_FUSED_PARAMETERS[kind]} parameters"
    return None


def activate(b: Builder, x: ir.Value) -> ir.Value:
    """`x` behind the activation that is fused into the layer.

    Source: src/layer/fused_activation.h, activation_ss.
    """
    kind, numbers = b.layer.int(9, 0), b.layer.floats(10)
    if kind == 0:
        return x
    if kind == 3:
        return _clip(b, x, numbers[0], numbers[1], part="activation")
    if kind == 6:
        return _hard_swish(b, x, numbers[0], numbers[1], part="activation")
    attributes = {"alpha": numbers[0]} if kind == 2 else None
    return b.emit(_FUSED[kind], [x], b.dims(x), attributes, part="activation")


def _clip(b: Builder, x: ir.Value, low: float, high: float, *, part: str = "") -> ir.Value:
    """Clip to [low, high]."""
    bounds = [b.scalar(low, "min"), b.scalar(high, "max")]
    return b.emit("Clip", [x, *bounds], b.dims(x), part=part)


def _hard_swish(b: Builder, x: ir.Value, alpha: float, beta: float, *, part: str = "") -> ir.Value:
    """X * clip(alpha x + beta, 0, 1); ONNX's HardSwish is the one with 1/6 and 1/2."""
    if np.allclose([alpha, beta], _HARD_SWISH, rtol=1e-6, atol=0):
        return b.emit("HardSwish", [x], b.dims(x), part=part)
    gate = _hard_sigmoid(b, x, alpha, beta, part="gate")
    return b.emit("Mul", [x, gate], b.dims(x), part=part)


def _hard_sigmoid(b: Builder, x: ir.Value, alpha: float, beta: float, *, part: str) -> ir.Value:
    attributes = {"alpha": alpha, "beta": beta}
    return b.emit("HardSigmoid", [x], b.dims(x), attributes, part=part)


@converts(*_PLAIN)
def _plain(b: Builder, layer: Layer) -> ir.Value:
    """Layers that are one ONNX operator without attributes; any dims."""
    x = b.input()
    return b.emit(_PLAIN[layer.kind], [x], b.dims(x))


@converts("ReLU")
def _relu(b: Builder, layer: Layer) -> ir.Value:
    """ReLU, or LeakyRelu when parameter 0 gives a slope."""
    x, slope = b.input(), layer.float(0, 0.0)
    if slope == 0.0:
        return b.emit("Relu", [x], b.dims(x))
    return b.emit("LeakyRelu", [x], b.dims(x), {"alpha": slope})


@converts("Clip")
def _clip_layer(b: Builder, layer: Layer) -> ir.Value:
    """Clip, open by default."""
    largest = float(np.finfo(np.float32).max)
    return _clip(b, b.input(), layer.float(0, -largest), layer.float(1, largest))


@converts("PReLU")
def _prelu(b: Builder, layer: Layer) -> ir.Value:
    """One slope, or one for each index of the outermost axis (src/layer/prelu.cpp)."""
    x, slope = b.input(), b.weight("slope")
    dims = b.dims(x)
    if slope.size not in {1, dims[0]}:
        raise b.bad(
            f"PReLU '{layer.name}' has {slope.size} slopes", f"its input has {dims[0]} channels"
        )
    shaped = slope.reshape(-1, *(1 for _ in dims[1:]))
    return b.emit("PRelu", [x, b.constant(shaped, "slope")], dims)


@converts("Swish")
def _swish(b: Builder, layer: Layer) -> ir.Value:  # noqa: ARG001 - one signature for all
    """X * sigmoid(x)."""
    x = b.input()
    gate = b.emit("Sigmoid", [x], b.dims(x), part="gate")
    return b.emit("Mul", [x, gate], b.dims(x))


@converts("HardSigmoid")
def _hard_sigmoid_layer(b: Builder, layer: Layer) -> ir.Value:
    """Parameters 0 and 1 are alpha (0.2) and beta (0.5)."""
    return _hard_sigmoid(b, b.input(), layer.float(0, 0.2), layer.float(1, 0.5), part="")


@converts("HardSwish")
def _hard_swish_layer(b: Builder, layer: Layer) -> ir.Value:
    """Parameters 0 and 1 are alpha (0.2) and beta (0.5), not the usual 1/6 and 1/2."""
    return _hard_swish(b, b.input(), layer.float(0, 0.2), layer.float(1, 0.5))


@converts("ELU")
def _elu(b: Builder, layer: Layer) -> ir.Value:
    """Alpha is 0.1 by default, where ONNX has 1."""
    x = b.input()
    return b.emit("Elu", [x], b.dims(x), {"alpha": layer.float(0, 0.1)})


@converts("CELU")
def _celu(b: Builder, layer: Layer) -> ir.Value:
    """Alpha is 1 by default."""
    x = b.input()
    return b.emit("Celu", [x], b.dims(x), {"alpha": layer.float(0, 1.0)})


@converts("SELU")
def _selu(b: Builder, layer: Layer) -> ir.Value:
    """Parameters 0 and 1 are alpha and lambda (src/layer/selu.cpp)."""
    x = b.input()
    attributes = {"alpha": layer.float(0, 1.67326324), "gamma": layer.float(1, 1.050700987)}
    return b.emit("Selu", [x], b.dims(x), attributes)


@converts("GELU")
def _gelu(b: Builder, layer: Layer) -> ir.Value:
    """Exact, or the tanh approximation when parameter 0 is set."""
    x = b.input()
    approximate = "tanh" if layer.int(0, 0) else "none"
    return b.emit("Gelu", [x], b.dims(x), {"approximate": approximate})

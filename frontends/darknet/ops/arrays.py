"""The arrays of layers with weights, and batch normalization in its three readings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.frontends.darknet.layer import lazy
from qconvert.graph import shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.frontends.darknet.layer import Layer
    from qconvert.quant import F32

__all__ = ["MOST_CHANNELS", "NORMALIZATION", "fresh", "initializers", "normalize"]

MOST_CHANNELS: Final = 1 << 22
NORMALIZATION: Final = ("scale", "mean", "variance")
"""Arrays of batch normalization, in the order of the file; its shift is the layer's bias."""

_ROUNDING: Final = 1e-5
_EPSILON: Final = {"alexeyab": 1e-5, "opencv": 1e-6, "pjreddie": 0.0}


def fresh(channels: int) -> dict[str, ir.TensorProtocol]:
    """What Darknet computes with where `dontloadscales=1` left the arrays out."""
    return {
        "scale": lazy(lambda: np.ones(channels, np.float32), (channels,)),
        "mean": lazy(lambda: np.zeros(channels, np.float32), (channels,)),
        "variance": lazy(lambda: np.zeros(channels, np.float32), (channels,)),
    }


def initializers(layer: Layer, tensors: Mapping[str, ir.TensorProtocol]) -> dict[str, ir.Value]:
    """Register arrays: `.weight`, `.bias`, and `.bn_<kind>` where they are normalization's."""
    normalized = "scale" in tensors
    values = {}
    for kind, tensor in tensors.items():
        if normalized and kind != "weight":
            array = _variance(tensor, layer) if kind == "variance" else tensor
            value = layer.initializer(f"bn_{kind}", array)
        else:
            value = layer.initializer(kind, tensor)
        values[kind] = value
    return values


def _variance(tensor: ir.TensorProtocol, layer: Layer) -> ir.TensorProtocol:
    """Variances for the chosen formula.

    AlexeyAB divides by sqrt(variance + 1e-5) and OpenCV by sqrt(variance + 1e-6): epsilons.
    pjreddie divides by sqrt(variance) + 1e-6 (normalize_cpu in src/blas.c), so here the square of
    that is the variance, and epsilon 0. Rounding can leave a variance just below zero: it counts
    as 0.

    Raises:
        ModelFormatError: If one is further below.
    """
    rule = layer.network.options.darknet_bn
    if isinstance(tensor, ir.Tensor) and float(tensor.numpy().min()) < -_ROUNDING:
        raise layer.section.wrong(
            f"the weights of layer '{layer.name}' hold a variance below zero",
            "Darknet itself would take the root of a negative number",
            fix="give the weights that were trained with this cfg",
        )

    def compute() -> F32:
        positive: F32 = np.maximum(tensor.numpy(), 0)
        if rule == "pjreddie":
            positive = ((np.sqrt(positive.astype(np.float64)) + 1e-6) ** 2).astype(np.float32)
        return positive

    return lazy(compute, tensor.shape.numpy())


def normalize(layer: Layer, x: ir.Value, arrays: Mapping[str, ir.Value], *, part: str) -> ir.Value:
    """BatchNormalization with the arrays bias, scale, mean and variance."""
    inputs = [x, *(arrays[kind] for kind in ("scale", "bias", "mean", "variance"))]
    epsilon = {"epsilon": _EPSILON[layer.network.options.darknet_bn]}
    y = layer.op("BatchNormalization", inputs, shape_of(x), epsilon, part=part)
    y.name = f"{layer.name}/linear"
    return y

"""[connected] and [batchnorm]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from qconvert.frontends.darknet.layer import lazy
from qconvert.frontends.darknet.ops import converts
from qconvert.frontends.darknet.ops.activation import activate
from qconvert.frontends.darknet.ops.arrays import (
    MOST_CHANNELS,
    NORMALIZATION,
    fresh,
    initializers,
    normalize,
)
from qconvert.graph import shape_of

if TYPE_CHECKING:
    from qconvert.frontends.darknet.layer import Layer

__all__: list[str] = []


@converts("connected", "conn", refuses={"dontload": "its weights would be random"})
def _connected(layer: Layer) -> ir.Value:
    """[connected] → Gemm, BatchNormalization, activation; gives [1, output].

    File order: bias; weight; scale, mean, variance when normalized (load_connected_weights).
    """
    section = layer.section
    x = layer.vector()
    inputs = shape_of(x)[1]
    outputs = section.integer("output", 1, low=1, high=MOST_CHANNELS)
    tensors = {"bias": layer.take((outputs,), "bias")}
    if layer.network.weights.transposed:
        stored = layer.take((inputs, outputs), "weight")
        tensors["weight"] = lazy(lambda: stored.numpy().T, (outputs, inputs))
    else:
        tensors["weight"] = layer.take((outputs, inputs), "weight")
    normalized = section.integer("batch_normalize", 0)
    if normalized and section.integer("dontloadscales", 0):
        tensors |= fresh(outputs)
    elif normalized:
        tensors |= {kind: layer.take((outputs,), kind) for kind in NORMALIZATION}
    arrays = initializers(layer, tensors)
    shape, transposed = (1, outputs), {"transB": 1}
    if not normalized:
        y = layer.op("Gemm", [x, arrays["weight"], arrays["bias"]], shape, transposed)
    else:
        y = layer.op("Gemm", [x, arrays["weight"]], shape, transposed)
        y.name = f"{layer.name}/gemm"
        y = normalize(layer, y, arrays, part="bn")
    return activate(layer, y, default="logistic")


@converts("batchnorm", refuses={"dontload": "its weights would be random"})
def _batchnorm(layer: Layer) -> ir.Value:
    """[batchnorm] → BatchNormalization.

    File order: bias, scale, mean, variance; pjreddie's Darknet stores no bias
    (load_batchnorm_weights).
    """
    x = layer.image()
    channels = shape_of(x)[1:2]
    zeros: ir.TensorProtocol = ir.Tensor(np.zeros(channels, np.float32))
    biased = layer.network.weights.batchnorm_biases
    tensors = {"bias": layer.take(channels, "bias") if biased else zeros}
    tensors |= {kind: layer.take(channels, kind) for kind in NORMALIZATION}
    return normalize(layer, x, initializers(layer, tensors), part="")

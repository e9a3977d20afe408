"""The search of the paper on one layer, written down as it is described (arXiv:2006.16669, 3.2).

Every candidate runs the layer again over all images: a hundred weight scales, all channels at a
time, then a hundred activation scales, until the cosine stops growing. No sampling, no caching.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.graph import IR_VERSION, constant
from qconvert.quant import dequantize, quantize
from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.quant import F32, QParams

FACTORS: Final = np.linspace(0.5, 2.0, 100, dtype=np.float32)
ROUNDS: Final = 10
TOLERANCE: Final = 1e-6


def _alone(model: ir.Model, node: ir.Node) -> OnnxRuntime:
    """The layer as a network that takes an image and the weight."""
    fed = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
        for name, value in zip("xw", node.inputs, strict=False)
        if value is not None
    ]
    held = [
        ir.Value(name="b", const_value=ir.tensor(array, name="b"))
        for array in map(constant, node.inputs[2:])
        if array is not None
    ]
    output = ir.Value(name="y", type=ir.TensorType(ir.DataType.FLOAT), shape=node.outputs[0].shape)
    layer = ir.Node("", node.op_type, [*fed, *held], node.attributes.values(), outputs=[output])
    graph = ir.Graph(
        fed, [output], nodes=[layer], initializers=held, opset_imports=model.graph.opset_imports
    )
    return OnnxRuntime(ir.Model(graph, ir_version=IR_VERSION), threads=1)


def _cosines(left: F32, right: F32, axes: tuple[int, ...]) -> npt.NDArray[np.float64]:
    a, b = left.astype(np.float64), right.astype(np.float64)
    norms = np.sqrt(np.square(a).sum(axes) * np.square(b).sum(axes))
    return (a * b).sum(axes) / np.maximum(norms, 1e-30)


def search_layer(
    model: ir.Model,
    node: ir.Node,
    values: tuple[F32, F32],
    weight: QParams,
    activation: QParams,
) -> tuple[QParams, QParams, float]:
    """Find scales for one layer.

    Args:
        model: The network.
        node: A Conv or a Gemm with a constant weight.
        values: Its inputs from the quantized prefix and its float outputs, [images, ...].
        weight: Where the weight's scales start, one per output channel.
        activation: Where the scale of the input starts.

    Returns:
        Weight and activation parameters, and the mean cosine they reach.
    """
    held, (inputs, exact) = constant(node.inputs[1]), values
    assert held is not None
    per_channel = tuple(range(2, exact.ndim)) or (0,)
    whole = tuple(range(1, exact.ndim))

    def run(w: QParams, a: QParams) -> F32:
        feed = dequantize(quantize(held, w), w)
        images = dequantize(quantize(inputs, a), a)
        return np.concatenate([layer.run({"x": x[None], "w": feed})["y"] for x in images])

    with _alone(model, node) as layer:
        first_weight, first_activation = weight, activation
        best = float(_cosines(run(weight, activation), exact, whole).mean())
        for _ in range(ROUNDS):
            last = best
            tried = [replace(weight, scale=first_weight.scale * factor) for factor in FACTORS]
            rows = [
                np.atleast_2d(_cosines(run(w, activation), exact, per_channel)).mean(axis=0)
                for w in tried
            ]
            scales = np.stack([w.scale for w in tried])
            chosen = scales[np.argmax(rows, axis=0), np.arange(scales.shape[1])]
            weight = replace(weight, scale=chosen)
            for factor in FACTORS:
                scale = np.asarray(first_activation.scale * factor, np.float32)
                candidate = replace(activation, scale=scale)
                cosine = float(_cosines(run(weight, candidate), exact, whole).mean())
                if cosine > best:
                    best, activation = cosine, candidate
            if best - last < TOLERANCE:
                break
    return weight, activation, best

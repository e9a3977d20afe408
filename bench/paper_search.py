"""The search of the paper on one layer, written down as it is described (arXiv:2006.16669, 3.2).

Every candidate runs the layer again over all images: a hundred scales for every channel of the
weight, then a hundred for the input, in rounds until the cosine stops growing. Nothing is sampled
or kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.graph import IR_VERSION, constant
from qconvert.quant import dequantize, quantize
from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.quant import F32, QParams

    F64 = npt.NDArray[np.float64]

TOLERANCE: Final = 1e-6


@dataclass(frozen=True)
class Plain:
    """How much of the paper's search is done.

    Attributes:
        together: Whether a run of the layer tries a candidate for all its channels; else each
            channel has runs of its own.
        candidates: For the scale of each channel, and for that of the input.
        rounds: Over weight and input, at most.
    """

    together: bool
    candidates: int = 100
    rounds: int = 10


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


def _cosines(left: F32, right: F32, axes: tuple[int, ...]) -> F64:
    a, b = left.astype(np.float64), right.astype(np.float64)
    norms = np.sqrt(np.square(a).sum(axes) * np.square(b).sum(axes))
    return (a * b).sum(axes) / np.maximum(norms, 1e-30)


@dataclass
class _Layer:
    """A layer, its data and its scales."""

    runtime: OnnxRuntime
    held: F32
    inputs: F32
    exact: F32
    weight: QParams
    activation: QParams

    def run(self, weight: QParams, activation: QParams) -> F32:
        feed = dequantize(quantize(self.held, weight), weight)
        images = dequantize(quantize(self.inputs, activation), activation)
        return np.concatenate([self.runtime.run({"x": x[None], "w": feed})["y"] for x in images])

    def whole(self, activation: QParams) -> float:
        """Mean cosine of the output over the images."""
        axes = tuple(range(1, self.exact.ndim))
        return float(_cosines(self.run(self.weight, activation), self.exact, axes).mean())

    def by_channel(self, scales: F32) -> F64:
        """Mean cosine of every channel; of one number per image the images make the vector."""
        found = self.run(replace(self.weight, scale=scales), self.activation)
        axes = tuple(range(2, self.exact.ndim))
        return (
            _cosines(found, self.exact, axes).mean(axis=0)
            if axes
            else _cosines(found, self.exact, (0,))
        )

    def together(self, tries: F32) -> F32:
        """The best scale of every channel; one run tries a candidate for all."""
        rows = [self.by_channel(row) for row in tries]
        best: F32 = tries[np.argmax(rows, axis=0), np.arange(tries.shape[1])]
        return best

    def one_by_one(self, tries: F32) -> F32:
        """The best scale of every channel, channel after channel."""
        scales = np.copy(self.weight.scale)
        for channel in range(scales.size):
            scores = []
            for value in tries[:, channel]:
                scales[channel] = value
                scores.append(self.by_channel(np.copy(scales))[channel])
            scales[channel] = tries[int(np.argmax(scores)), channel]
        return scales


def search_layer(
    model: ir.Model,
    node: ir.Node,
    values: tuple[F32, F32],
    start: tuple[QParams, QParams],
    plain: Plain,
) -> float:
    """Find scales for one layer.

    Args:
        model: The network.
        node: A Conv or a Gemm with a constant weight.
        values: Its inputs from the quantized prefix and its float outputs, [images, ...].
        start: Where the weight's scales, one per output channel, and the input's scale start.
        plain: How much is done.

    Returns:
        The mean cosine of the output that is reached.
    """
    held = constant(node.inputs[1])
    assert held is not None
    factors = np.linspace(0.5, 2.0, plain.candidates, dtype=np.float32)
    tries = np.stack([start[0].scale * factor for factor in factors])
    with _alone(model, node) as runtime:
        layer = _Layer(runtime, held, *values, *start)
        best = layer.whole(layer.activation)
        for _ in range(plain.rounds):
            last = best
            scales = layer.together(tries) if plain.together else layer.one_by_one(tries)
            layer.weight = replace(layer.weight, scale=scales)
            for factor in factors:
                scale = np.asarray(start[1].scale * factor, np.float32)
                candidate = replace(start[1], scale=scale)
                cosine = layer.whole(candidate)
                if cosine > best:
                    best, layer.activation = cosine, candidate
            if best - last < TOLERANCE:
                break
    return best

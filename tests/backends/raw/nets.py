"""Small quantized networks: an ONNX text, scales from what it computes, Q/DQ nodes in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from qconvert.backends.raw.policy import POLICY
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.planning import plan
from qconvert.passes.round_biases import round_biases
from qconvert.plan import Scheme
from qconvert.quant import Encodings, asymmetric, log2, symmetric
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from qconvert.plan import ActivationSpec
    from qconvert.quant import F32, QParams

__all__ = ["graph", "inputs_of", "quantized", "weights_of"]


def graph(text: str, weights: Mapping[str, npt.NDArray[np.generic]]) -> ir.Model:
    """The float model of an ONNX text; nodes are named after their outputs, other weights go."""
    head = '<ir_version: 10, opset_import: ["" : 21]>\n'
    words = set(re.findall(r"\w+", text))
    tensors = [ir.tensor(array, name=name) for name, array in weights.items() if name in words]
    model = ir.from_onnx_text(head + text, initializers=tensors)
    for node in model.graph:
        node.name = str(node.outputs[0].name).upper()
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        value.shape = ir.Shape(value.const_value.shape.numpy())
        value.dtype = value.const_value.dtype
    for value in model.graph.outputs:
        value.shape = None  # inference knows better than the text
    ShapeInferencePass()(model)
    return model


def weights_of(rng: np.random.Generator, **shapes: tuple[int, ...]) -> dict[str, F32]:
    """Random weights by name."""
    return {
        name: (rng.standard_normal(shape) * 0.5).astype(np.float32)
        for name, shape in shapes.items()
    }


def inputs_of(model: ir.Model, rng: np.random.Generator) -> dict[str, F32]:
    """Random network inputs."""
    return {
        str(value.name): rng.standard_normal(value.shape.numpy()).astype(np.float32)
        for value in model.graph.inputs
        if value.shape is not None
    }


def quantized(model: ir.Model, rng: np.random.Generator, scheme: Scheme | None = None) -> ir.Model:
    """`model` with Q/DQ nodes for the raw target; scales reach what random inputs reach."""
    scheme = scheme or Scheme()
    layout = plan(model, POLICY, scheme, Report())
    inside = [
        name for name in layout.activations if name not in {v.name for v in model.graph.inputs}
    ]
    feeds = [inputs_of(model, rng) for _ in range(4)]
    with OnnxRuntime(with_outputs(model, inside), optimize=False, threads=1) as runtime:
        seen = [{**feed, **runtime.run(feed)} for feed in feeds]
    found = Encodings()
    for name, spec in layout.activations.items():
        values = np.concatenate([run[name].reshape(-1) for run in seen])
        found.activations[name] = _activation(values, spec, power_of_two=scheme.power_of_two)
    for group in layout.ties:
        widest = max(group, key=lambda name: float(found.activations[name].scale))
        found.activations.update(dict.fromkeys(group, found.activations[widest]))
    for layer in layout.layers:
        value = model.graph.initializers[str(layer.weight)]
        assert value.const_value is not None
        axis = None if layer.granularity == "tensor" else layer.weight_axis
        weight = np.abs(value.const_value.numpy())
        others = tuple(index for index in range(weight.ndim) if index != layer.weight_axis)
        top = weight.max() if axis is None else weight.max(axis=others)
        if layer.log2:
            reach = _power(top) if scheme.power_of_two else top
            params = log2(reach, bits=layer.weight_bits, axis=axis)
        else:
            levels = 2 ** (layer.weight_bits - 1) - 1
            reach = _power(top / levels) * levels if scheme.power_of_two else top
            params = symmetric(reach, bits=layer.weight_bits, axis=axis)
        found.weights[str(layer.weight)] = params
    result = insert_qdq(model, layout, found)
    round_biases(result)
    return result


def _power(scale: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The power of two next above."""
    return np.asarray(2.0 ** np.ceil(np.log2(np.asarray(scale, np.float64))))


def _activation(values: F32, spec: ActivationSpec, *, power_of_two: bool) -> QParams:
    """Scales that reach what was seen."""
    if spec.asymmetric or (spec.unsigned and not power_of_two):
        return asymmetric(values.min(), values.max(), bits=spec.bits)
    top, levels = float(np.abs(values).max()), 2 ** (spec.bits - 1) - 1
    return symmetric(_power(top / levels) * levels if power_of_two else top, bits=spec.bits)

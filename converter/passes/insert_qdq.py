"""Write a plan and its encodings into the graph, as QuantizeLinear and DequantizeLinear.

    x → QuantizeLinear → [Clip] → DequantizeLinear → layer        codes → DequantizeLinear → layer

An activation has one pair, shared by everything that reads it on integers. Codes narrower than
their storage type are bounded by a Clip on the codes; 8-bit codes are bounded by saturation
itself. Weights are stored as codes; those whose codes are exponents pass through the function
`qconvert.DequantizeLog2` instead. From here on these nodes are the truth about quantization;
the encodings have served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from qconvert.errors import CalibrationError
from qconvert.functions.log2 import dequantize_log2
from qconvert.graph import is_output, shape_of
from qconvert.passes.fit_encodings import fit
from qconvert.passes.rewrite import add_initializer, names_in
from qconvert.quant import quantize

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.plan import Plan
    from qconvert.quant import Encodings, QParams

__all__ = ["Writer", "insert_qdq", "storage"]


def storage(params: QParams) -> np.dtype[np.generic]:
    """The integer type that holds codes of `params`: int8, uint8, int16 or uint16."""
    if params.bits <= 8:
        return np.dtype(np.int8 if params.signed else np.uint8)
    return np.dtype(np.int16 if params.signed else np.uint16)


def insert_qdq(model: ir.Model, plan: Plan, encodings: Encodings) -> ir.Model:
    """A copy of `model` with `plan` carried out; unchanged weights are shared with it.

    Args:
        model: The float model the plan was made for.
        plan: What is quantized.
        encodings: Scales for what the plan names; more is allowed. `rounded` codes are used where
            there are any, `biases` replace biases.

    Returns:
        A model in which observed values have a pair that nobody reads. Its names are the float
        model's, plus `<value>/quantized`, `<value>/clipped`,
        `<value>/dequantized`, `<weight>/codes`, and `/scale`, `/zero_point` of both. An output
        that is quantized keeps its name; the float value before it becomes `<output>/float`.

    Raises:
        CalibrationError: If encodings are missing (all are named), of another width, or do not
            fit the tensors they are for.
    """
    fitted = fit(plan, encodings)
    copy = model.clone()
    graph = copy.graph
    nodes = {str(node.name): node for node in graph}
    values = {str(value.name): value for node in graph for value in node.outputs}
    values.update((str(value.name), value) for value in graph.inputs)
    _replace_biases(graph, fitted)
    writer = Writer(copy, names_in(graph))
    weights: dict[str, ir.Value] = {}
    for layer in plan.layers:
        node, name = nodes[layer.node], layer.weight
        if name is None:
            continue
        # A weight that two layers share is stored once.
        if name not in weights:
            weights[name] = writer.weight(node, name, fitted)
        node.replace_input_with(1, weights[name])
    for name, params in fitted.activations.items():
        value = values[name]
        readers = _readers(plan, value, nodes)
        result = writer.activation(value, params)
        for reader, index in readers:
            reader.replace_input_with(index, result)
        if plan.every_reader and is_output(value) and value.producer() is not None:
            _expose(graph, value, result)
    for initializer in tuple(graph.initializers.values()):
        if not initializer.uses() and not is_output(initializer):
            del graph.initializers[str(initializer.name)]
    return copy


def _readers(plan: Plan, value: ir.Value, nodes: dict[str, ir.Node]) -> list[tuple[ir.Node, int]]:
    """Who reads the dequantized form of `value`, at which of its inputs."""
    name = str(value.name)
    if plan.uses:
        return [(nodes[node], index) for node, index in sorted(plan.uses.get(name, ()))]
    if plan.every_reader:
        return [(use.node, use.idx) for use in value.uses()]
    return [(nodes[layer.node], 0) for layer in plan.layers if layer.input == name]


def _replace_biases(graph: ir.Graph, encodings: Encodings) -> None:
    """Put corrected biases in the place of the old ones."""
    for name, bias in encodings.biases.items():
        value = graph.initializers.get(name)
        if value is None or shape_of(value) != bias.shape:
            raise CalibrationError(
                f"the corrected bias '{name}' has no place in the model",
                why=f"there is no bias of that name and shape {list(bias.shape)}",
                fix="calibrate this model again",
            )
        value.const_value = ir.tensor(bias, name=name)


def _codes(name: str, weight: ir.Value, encodings: Encodings) -> npt.NDArray[np.generic]:
    """Codes of a weight: those calibration chose, else rounded to nearest."""
    params = encodings.weights[name]
    shape = shape_of(weight)
    if params.axis is not None and params.scale.size != shape[params.axis]:
        raise CalibrationError(
            f"the encoding of '{name}' has {params.scale.size} scales",
            why=f"the weight has shape {list(shape)}, channels along axis {params.axis}",
            fix="calibrate this model again",
        )
    chosen = encodings.rounded.get(name)
    if chosen is None:
        assert weight.const_value is not None
        return quantize(weight.const_value.numpy(), params).astype(storage(params))
    if chosen.shape != shape or chosen.min() < params.low or chosen.max() > params.high:
        raise CalibrationError(
            f"the rounded codes of '{name}' do not fit",
            why=f"the weight has shape {list(shape)}, its codes {params.low}..{params.high}",
            fix="calibrate this model again",
        )
    return chosen.astype(storage(params))


@dataclass(frozen=True, slots=True)
class Writer:
    """Adds Q/DQ nodes and their constants to a graph.

    Attributes:
        model: The model; its main graph is the one.
        taken: Names in use.
    """

    model: ir.Model
    taken: set[str]

    @property
    def graph(self) -> ir.Graph:
        """The graph."""
        return self.model.graph

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """A new initializer."""
        return add_initializer(self.graph, name, array, self.taken)

    def value(self, name: str, kind: ir.DataType, like: ir.Value) -> ir.Value:
        """A new value of the shape of `like`."""
        self.taken.add(name)
        return ir.val(name, dtype=kind, shape=shape_of(like))

    def parameters(self, name: str, params: QParams) -> list[ir.Value]:
        """A scale and a zero point."""
        zero_point = params.zero_point.astype(storage(params))
        return [
            self.constant(f"{name}/scale", params.scale),
            self.constant(f"{name}/zero_point", zero_point),
        ]

    def weight(self, before: ir.Node, name: str, encodings: Encodings) -> ir.Value:
        """The dequantized form of the weight of the node `before`, stored as codes."""
        weight, params = before.inputs[1], encodings.weights[name]
        assert weight is not None
        codes = self.constant(f"{name}/codes", _codes(name, weight, encodings))
        output = self.value(f"{name}/dequantized", ir.DataType.FLOAT, weight)
        if params.log2:
            scale = self.constant(f"{name}/scale", params.scale)
            call = dequantize_log2(self.model, codes, scale, params, name=f"{name}/dequantize")
            call.outputs[0].name = output.name
            self.graph.insert_before(before, call)
            return call.outputs[0]
        attributes = {} if params.axis is None else {"axis": params.axis}
        inputs = [codes, *self.parameters(name, params)]
        node = ir.node(
            "DequantizeLinear", inputs, attributes, outputs=[output], name=f"{name}/dequantize"
        )
        self.graph.insert_before(before, node)
        return output

    def activation(self, value: ir.Value, params: QParams) -> ir.Value:
        """The dequantized form of the activation `value`."""
        name, dtype = str(value.name), storage(params)
        scale, zero_point = self.parameters(name, params)
        kind = ir.DataType.from_numpy(dtype)
        codes = self.value(f"{name}/quantized", kind, value)
        inputs = [value, scale, zero_point]
        new = [ir.node("QuantizeLinear", inputs, outputs=[codes], name=f"{name}/quantize")]
        if params.bits not in (8, 16):
            low = self.constant(f"{name}/low", np.asarray(params.low, dtype))
            high = self.constant(f"{name}/high", np.asarray(params.high, dtype))
            clipped = self.value(f"{name}/clipped", kind, value)
            inputs, codes = [codes, low, high], clipped
            new.append(ir.node("Clip", inputs, outputs=[clipped], name=f"{name}/clip"))
        result = self.value(f"{name}/dequantized", ir.DataType.FLOAT, value)
        inputs = [codes, scale, zero_point]
        new.append(ir.node("DequantizeLinear", inputs, outputs=[result], name=f"{name}/dequantize"))
        producer = value.producer()
        if producer is not None:
            self.graph.insert_after(producer, new)
        else:
            self.graph.insert_before(self.graph[0], new)
        return result


def _expose(graph: ir.Graph, value: ir.Value, result: ir.Value) -> None:
    """Let the dequantized form of an output be the output, under its name."""
    name = value.name
    graph.outputs[list(graph.outputs).index(value)] = result
    value.name = f"{name}/float"
    result.name = name

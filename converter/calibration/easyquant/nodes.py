"""One operator at a time: a node of the network as a small model of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from qconvert.graph import IR_VERSION, constant
from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from qconvert.quant import F32

__all__ = ["activation_after", "clip_bounds", "isolate"]


def isolate(
    model: ir.Model, node: ir.Node, constants: Mapping[int, F32] | None = None
) -> OnnxRuntime:
    """A runtime of one thread for `node` alone.

    Args:
        model: The model it belongs to; its functions come along.
        node: The node. Its inputs and outputs keep their names.
        constants: Input index → array, in the place of what the node has there.
    """
    inputs: list[ir.Value | None] = []
    made: dict[str, ir.Value] = {}
    fed: list[ir.Value] = []
    held: list[ir.Value] = []
    for index, value in enumerate(node.inputs):
        if value is None:
            inputs.append(None)
            continue
        name = str(value.name)
        given = (constants or {}).get(index)
        array = given if given is not None else constant(value)
        if given is not None:
            name = f"{name}/given{index}"
        if name not in made:
            made[name] = _twin(value, name, array)
            (fed if array is None else held).append(made[name])
        inputs.append(made[name])
    outputs = [ir.Value(name=v.name, type=v.type, shape=v.shape) for v in node.outputs]
    alone = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        list(node.attributes.values()),
        overload=node.overload,
        outputs=outputs,
        name=node.name,
    )
    graph = ir.Graph(
        fed,
        [value for value in outputs if value.name],
        nodes=[alone],
        initializers=held,
        name="alone",
        opset_imports=model.graph.opset_imports,
    )
    functions = tuple(model.functions.values()) if node.domain else ()
    return OnnxRuntime(ir.Model(graph, ir_version=IR_VERSION, functions=functions), threads=1)


def _twin(value: ir.Value, name: str, array: npt.NDArray[Any] | None) -> ir.Value:
    """A copy of a value for another graph; a constant where there is an array."""
    if array is None:
        return ir.Value(name=name, type=value.type, shape=value.shape)
    tensor = ir.tensor(array, name=name)
    return ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(array.shape),
        const_value=tensor,
    )


def activation_after(node: ir.Node) -> Callable[[F32], F32] | None:
    """The activation function that alone reads `node`, on [O, P]; None when there is none.

    Where a layer's output passes such a function, errors that it swallows do not count.
    """
    readers = {id(use): use for use in node.outputs[0].consumers()}
    if len(readers) != 1 or node.outputs[0].is_graph_output():
        return None
    reader = next(iter(readers.values()))
    if reader.op_type == "Relu":
        return lambda y: np.maximum(y, np.float32(0))
    if reader.op_type == "Clip":
        low, high = clip_bounds(reader)
        return lambda y: np.clip(y, np.float32(low), np.float32(high))
    if reader.op_type == "LeakyRelu":
        slope = np.float32(reader.attributes.get_float("alpha", 0.01))
        return lambda y: np.where(y < 0, slope * y, y)
    return _prelu(reader) if reader.op_type == "PRelu" else None


def clip_bounds(node: ir.Node) -> tuple[float, float]:
    """Between which values a Relu or Clip keeps its input; everything for other nodes."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip":
        return -np.inf, np.inf
    ends = [constant(value) if value is not None else None for value in node.inputs[1:3]]
    low = -np.inf if not ends or ends[0] is None else ends[0].item()
    high = np.inf if len(ends) < 2 or ends[1] is None else ends[1].item()
    return low, high


def _prelu(reader: ir.Node) -> Callable[[F32], F32] | None:
    """PRelu with one slope, or one a channel."""
    slopes = constant(reader.inputs[1])
    if slopes is None:
        return None
    rank = len(reader.inputs[0].shape or ()) if reader.inputs[0] is not None else 0
    if slopes.size != 1 and (slopes.ndim != rank - 1 or slopes.size != slopes.shape[0]):
        return None
    column = slopes.astype(np.float32).reshape(-1, 1)
    return lambda y: np.where(y < 0, column * y, y)

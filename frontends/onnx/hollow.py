"""A model without its large weights, small enough to hand to another process, and back again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnx_ir as ir

from qconvert.errors import ModelFormatError
from qconvert.frontends.onnx.container import of_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qconvert.frontends.onnx.container import Weights

__all__ = ["hollow", "refill"]

SMALL: Final = 1 << 16
"""Bytes up to which a weight travels with the graph: shapes and axes do."""

_FLOATS: Final = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


def hollow(
    model: onnx.ModelProto, weights: Weights
) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """Take the large weights out of a model.

    Args:
        model: Checked; left as it is.
        weights: Where its tensors are.

    Returns:
        The model with those weights as graph inputs, and the weights by name.

    Raises:
        ModelFormatError: If a name is given twice.
    """
    large: dict[str, ir.TensorProtocol] = {}
    slim = onnx.ModelProto(ir_version=model.ir_version)
    slim.opset_import.extend(model.opset_import)
    slim.functions.extend(model.functions)
    graph = slim.graph
    graph.name = model.graph.name
    graph.output.extend(model.graph.output)
    known: set[str] = set()
    for tensor in model.graph.initializer:
        if tensor.name in known:
            raise ModelFormatError(f"the initializer '{tensor.name}' is given twice")
        known.add(tensor.name)
        if _bytes(tensor) > SMALL:
            _take(graph, tensor.name, weights.tensor(tensor), large)
        else:
            graph.initializer.append(weights.inline(tensor))
    # Old exporters list initializers among the inputs; only the others are fed.
    graph.input.extend(value for value in model.graph.input if value.name not in known)
    for node in model.graph.node:
        constant = _constant(node)
        if constant is not None and _bytes(constant) > SMALL:
            _take(graph, node.output[0], weights.tensor(constant), large)
        else:
            graph.node.append(node)
    for function in slim.functions:
        _inline_all(function.node, weights)
    _inline_all(graph.node, weights)
    return slim, large


def refill(model: ir.Model, large: dict[str, ir.TensorProtocol]) -> None:
    """Give the weights of a hollow model their data back, in float32 where they are real.

    Args:
        model: With the weights among its inputs.
        large: Name → weight.
    """
    inputs = list(model.graph.inputs)
    model.graph.inputs.clear()
    for value in inputs:
        tensor = large.get(str(value.name))
        if tensor is None:
            model.graph.inputs.append(value)
            continue
        if tensor.dtype in _FLOATS:
            with np.errstate(over="ignore"):
                tensor = ir.tensor(tensor.numpy().astype(np.float32), name=value.name)
        value.const_value = tensor
        value.type = ir.TensorType(tensor.dtype)
        model.graph.register_initializer(value)


def _take(
    graph: onnx.GraphProto,
    name: str,
    tensor: ir.TensorProtocol,
    large: dict[str, ir.TensorProtocol],
) -> None:
    """Make a weight an input."""
    large[name] = tensor
    value = graph.input.add(name=name)
    value.type.tensor_type.elem_type = int(tensor.dtype)
    value.type.tensor_type.shape.SetInParent()
    for dim in tensor.shape.numpy():
        value.type.tensor_type.shape.dim.add().dim_value = int(dim)


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node."""
    if node.op_type != "Constant" or node.domain not in {"", "ai.onnx"} or len(node.output) != 1:
        return None
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.HasField("t"):
            return attribute.t
    return None


def _bytes(tensor: onnx.TensorProto) -> int:
    """Size of a tensor's elements."""
    if tensor.data_type == onnx.TensorProto.STRING:
        return 0
    count = int(np.prod(tensor.dims, dtype=np.float64))
    return count * int(ir.DataType(tensor.data_type).bitwidth) // 8


def _inline_all(nodes: Iterable[onnx.NodeProto], weights: Weights) -> None:
    """Bring external data of tensors in attributes inside."""
    for tensor in of_nodes(nodes):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.CopyFrom(weights.inline(tensor))

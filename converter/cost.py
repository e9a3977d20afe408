"""What a network costs: multiply-accumulates and parameters, from shapes alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qconvert.graph import shape_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["macs", "parameters", "total_macs"]


def macs(node: ir.Node) -> int:
    """Multiply-accumulates of one node; 0 for anything but convolutions and matrix products.

    Bias additions, activations and pooling are not counted.
    """
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"} or node.domain:
        return 0
    first, second = node.inputs[0], node.inputs[1]
    if first is None or second is None:
        return 0
    output = math.prod(shape_of(node.outputs[0]))
    if node.op_type == "Conv":
        return output * math.prod(shape_of(second)[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(shape_of(first)) * math.prod(shape_of(second)[1:])
    if node.op_type == "Gemm" and node.attributes.get_int("transA", 0) != 0:
        return output * shape_of(first)[0]
    return output * shape_of(first)[-1]


def total_macs(model: ir.Model) -> int:
    """Multiply-accumulates of one inference."""
    return sum(macs(node) for node in model.graph)


def parameters(model: ir.Model) -> int:
    """Number of trained floating-point values."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return sum(
        tensor.size for tensor in tensors if tensor is not None and tensor.dtype.is_floating_point()
    )

"""Which values never go below zero, whatever the network is fed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.graph import constant

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

__all__ = ["never_negative"]

_POSITIVE: Final = frozenset(
    {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Abs", "Exp", "Sqrt"}
)
"""Operators whose results are >= 0 for any input."""

_KEEPING: Final = frozenset(
    {
        "Add", "AveragePool", "Concat", "DepthToSpace", "DequantizeLinear", "Dropout", "Expand",
        "Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool", "Mul",
        "QuantizeLinear", "ReduceMax", "ReduceMean", "ReduceSum", "Reshape", "Slice",
        "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators whose results are >= 0 when all their float inputs are."""


def _all_positive(array: npt.NDArray[np.generic]) -> bool:
    """Whether no number of a float array is below zero; without a copy of float32."""
    return bool(np.asarray(array, dtype=np.float32).min(initial=0) >= 0)


def _clips_at_zero(node: ir.Node) -> bool:
    """Whether a Clip has a lower bound that is not negative."""
    low = constant(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    return low is not None and _all_positive(low)


def _is_weight(node: ir.Node) -> bool:
    """Whether a node dequantizes constants: their codes say nothing about their signs."""
    return node.op_type == "DequantizeLinear" and constant(node.inputs[0]) is not None


def never_negative(graph: ir.Graph) -> set[str]:
    """Names of the values of `graph` that are >= 0 for any input."""
    known: set[ir.Value] = set()
    for value in graph.initializers.values():
        array = constant(value)
        # Integer initializers are shapes and indices: they say nothing about signs.
        if array is not None and (array.dtype.kind in "iub" or _all_positive(array)):
            known.add(value)
    for node in graph:
        if node.domain or _is_weight(node):
            continue
        inputs = [value for value in node.inputs if value is not None]
        positive = node.op_type in _POSITIVE or (node.op_type == "Clip" and _clips_at_zero(node))
        if positive or (node.op_type in _KEEPING and all(value in known for value in inputs)):
            known.update(node.outputs)
    return {str(value.name) for value in known}

"""The last steps, with the weights' data at hand: fold what depends on them, name the nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from qconvert.frontends.onnx.evaluate import can_evaluate, evaluate
from qconvert.graph import constant, is_output

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["finish"]

_FLOOR: Final = 1 << 20
_GROWTH: Final = 2
"""A folded weight may take this many times the bytes it is computed from."""
_MARGIN: Final = 64 << 20
_TIMES: Final = 8
"""All folded weights together may take the margin and this many times the model's weights."""


def finish(model: ir.Model) -> None:
    """Fold nodes that compute weights, drop what is unused, give every node its own name."""
    weights = (value.const_value for value in model.graph.initializers.values())
    # Each step may double a weight: without a sum a short chain would fill the memory.
    left = _MARGIN + _TIMES * sum(tensor.nbytes for tensor in weights if tensor is not None)
    for node in list(model.graph):
        left -= _fold(model.graph, node, left)
    RemoveUnusedNodesPass()(model)
    _name_nodes(model.graph)


def _fold(graph: ir.Graph, node: ir.Node, left: int) -> int:
    """Replace a node by initializers when all its inputs are constants; their bytes."""
    given = [value for value in node.inputs if value is not None]
    if not given or any(value.const_value is None for value in given):
        return 0
    if any(is_output(value) for value in node.outputs):
        return 0
    size = sum(value.const_value.nbytes for value in given if value.const_value is not None)
    if not can_evaluate(node, min(left, max(_FLOOR, _GROWTH * size))):
        return 0
    arrays = [None if value is None else constant(value) for value in node.inputs]
    results = evaluate(node, arrays)
    if results is None:
        return 0
    outputs: Sequence[ir.Value] = node.outputs
    for value, array in zip(outputs, results, strict=True):
        fresh = ir.val(
            value.name, value.dtype, value.shape, const_value=ir.tensor(array, name=value.name)
        )
        value.replace_all_uses_with(fresh)
        if value.name:
            graph.register_initializer(fresh)
    graph.remove(node, safe=True)
    return sum(array.nbytes for array in results)


def _name_nodes(graph: ir.Graph) -> None:
    """Name nameless nodes `<operator>_<output>`, and make names unique."""
    taken = {str(node.name) for node in graph if node.name}
    seen: set[str] = set()
    for node in graph:
        output = next((value.name for value in node.outputs if value.name), "")
        name = node.name or f"{node.op_type}_{output}"
        if name in seen or (not node.name and name in taken):
            base, count = name, 1
            while name in seen or name in taken:
                name, count = f"{base}_{count}", count + 1
        node.name = name
        seen.add(name)

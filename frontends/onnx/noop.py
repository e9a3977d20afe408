"""Nodes that change nothing, known from their inputs, attributes and shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.graph import constant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

__all__ = ["passes_through"]


def passes_through(node: ir.Node) -> ir.Value | None:
    """The input whose value the node's only output has; None when it computes something."""
    rule = _RULES.get(node.op_type)
    if rule is None or not node.inputs or node.inputs[0] is None or len(node.outputs) != 1:
        return None
    return node.inputs[0] if rule(node) else None


def _always(node: ir.Node) -> bool:
    del node
    return True


def _single_input(node: ir.Node) -> bool:
    return len(node.inputs) == 1


def _same_type(node: ir.Node) -> bool:
    first = node.inputs[0]
    return first is not None and first.dtype is not None and first.dtype == node.outputs[0].dtype


def _same_shape(node: ir.Node) -> bool:
    first = node.inputs[0]
    if first is None or first.shape is None or node.outputs[0].shape is None:
        return False
    dims = list(first.shape)
    return all(isinstance(dim, int) for dim in dims) and dims == list(node.outputs[0].shape)


def _forward_slice(node: ir.Node) -> bool:
    if not _same_shape(node):
        return False
    if len(node.inputs) < 5 or node.inputs[4] is None:
        return True
    steps = constant(node.inputs[4])
    return steps is not None and bool((steps == 1).all())


def _identity_permutation(node: ir.Node) -> bool:
    order = node.attributes.get_ints("perm", ())
    return len(order) > 0 and list(order) == sorted(order)


def _no_padding(node: ir.Node) -> bool:
    amounts = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return amounts is not None and not np.any(amounts)


_RULES: Final[Mapping[str, Callable[[ir.Node], bool]]] = {
    "Cast": _same_type,
    "CastLike": _same_type,
    "Concat": _single_input,
    "Expand": _same_shape,
    "Flatten": _same_shape,
    "Identity": _always,
    "Max": _single_input,
    "Mean": _single_input,
    "Min": _single_input,
    "Pad": _no_padding,
    "Reshape": _same_shape,
    "Slice": _forward_slice,
    "Split": _same_shape,
    "Squeeze": _same_shape,
    "Sum": _single_input,
    "Tile": _same_shape,
    "Transpose": _identity_permutation,
    "Unsqueeze": _same_shape,
}

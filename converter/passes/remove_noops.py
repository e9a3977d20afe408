"""Remove operators that hand on what they are given.

Identity and inference-mode Dropout always do; the others when their parameters say so: a Reshape
to the same shape, a Transpose that moves nothing, a Pad by nothing, an Add of 0, ... Shapes are
known, so each question has an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from typing_extensions import override

from qconvert.graph import constant, is_output
from qconvert.passes.rewrite import NodePass, absorb, known_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

__all__ = ["RemoveNoops"]


def _always(node: ir.Node) -> bool:
    return not any(output.uses() or is_output(output) for output in node.outputs[1:])


def _same_shape(node: ir.Node) -> bool:
    shape = known_shape(node.inputs[0])
    return shape is not None and shape == known_shape(node.outputs[0])


def _alone(node: ir.Node) -> bool:
    return len(node.inputs) == 1


def _transpose(node: ir.Node) -> bool:
    """No axis moves, or only axes of size 1 do."""
    shape = known_shape(node.inputs[0])
    if shape is None:
        return False
    order = node.attributes.get_ints("perm", tuple(reversed(range(len(shape)))))
    moved = [axis for axis in order if shape[axis] != 1]
    return moved == sorted(moved) and _same_shape(node)


def _cast(node: ir.Node) -> bool:
    source = node.inputs[0]
    return source is not None and source.dtype is not None and source.dtype == node.outputs[0].dtype


def _slice(node: ir.Node) -> bool:
    """Nothing is cut off and nothing reversed."""
    if not _same_shape(node):
        return False
    steps = constant(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] else np.ones(1)
    return steps is not None and bool((steps == 1).all())


def _pad(node: ir.Node) -> bool:
    pads = constant(node.inputs[1])
    return pads is not None and not pads.any()


def _dropout(node: ir.Node) -> bool:
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    training = constant(mode) if mode is not None else np.zeros(1)
    return training is not None and not training.any() and _always(node)


def _clip(node: ir.Node) -> bool:
    return not any(value is not None for value in node.inputs[1:])


def _pool(node: ir.Node) -> bool:
    """A window of one pixel at every position."""
    return (
        all(size == 1 for size in node.attributes.get_ints("kernel_shape", ()))
        and _same_shape(node)
        and not any(node.attributes.get_ints("pads", ()))
        and _always(node)
    )


def _neutral(element: float, *, either: bool) -> Callable[[ir.Node], bool]:
    """Whether a binary operator has `element` on its right (or either) side."""

    def check(node: ir.Node) -> bool:
        other = _neutral_side(node, element, either=either)
        shape = known_shape(other)
        return shape is not None and shape == known_shape(node.outputs[0])

    return check


def _neutral_side(node: ir.Node, element: float, *, either: bool) -> ir.Value | None:
    """The operand that an operator with `element` on the other side hands on."""
    first, second = node.inputs
    right, left = constant(second), constant(first)
    if right is not None and first is not None and (right == element).all():
        return first
    if either and left is not None and second is not None and (left == element).all():
        return second
    return None


_NEUTRAL: Final = {"Add": (0.0, True), "Mul": (1.0, True), "Sub": (0.0, False), "Div": (1.0, False)}

_NOOP: Final[dict[str, Callable[[ir.Node], bool]]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _alone,
    "Sum": _alone,
    "Max": _alone,
    "Min": _alone,
    "Mean": _alone,
    "Expand": _same_shape,
    "Flatten": _same_shape,
    "Reshape": _same_shape,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Slice": _slice,
    "Split": _same_shape,
    "Tile": _same_shape,
    "Pad": _pad,
    "Transpose": _transpose,
    "MaxPool": _pool,
    "AveragePool": _pool,
    **{kind: _neutral(element, either=either) for kind, (element, either) in _NEUTRAL.items()},
}


def _source(node: ir.Node) -> ir.Value | None:
    """The value that `node` hands on."""
    if node.op_type in _NEUTRAL:
        element, either = _NEUTRAL[node.op_type]
        return _neutral_side(node, element, either=either)
    return node.inputs[0]


class RemoveNoops(NodePass):
    """Remove every operator whose output is its input."""

    step = "remove_noops"

    @override
    def matches(self, node: ir.Node) -> bool:
        check = _NOOP.get(node.op_type) if not node.domain else None
        return check is not None and check(node)

    @override
    def why_not(self, node: ir.Node) -> str | None:
        source = _source(node)
        if source is None or not is_output(node.outputs[0]):
            return None
        if source.producer() is None:
            return "it makes an input or a constant an output of the network"
        if is_output(source):
            return "its input is an output of the network too"
        return None

    @override
    def rewrite(self, node: ir.Node) -> None:
        source = _source(node)
        assert source is not None
        absorb(node, source)

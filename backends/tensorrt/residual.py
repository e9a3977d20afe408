"""Which input of an Add is the one that TensorRT fuses into a convolution.

    conv → [Relu, MaxPool, x * Sigmoid(x), moves] → Add ← skip

TensorRT computes conv, Add and the activation behind it in one kernel. That kernel takes the skip
input in the precision it puts out, so the skip is quantized; a pair between conv and Add would
break the kernel apart. Where both inputs come from convolutions, the longer way to their common
origin is the one that is fused.

Reference: NVIDIA/TensorRT-Model-Optimizer, modelopt/onnx/quantization/graph_utils.py
`build_non_residual_input_map`, `get_fusible_backbone` (0.47.0).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from qconvert.backends.tensorrt.sameness import BOUNDS, same_numbers, source_of
from qconvert.graph import constant

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir

__all__ = ["backbone", "fused_input", "is_swish"]

_CONVOLUTIONS: Final = frozenset({"Conv", "ConvTranspose"})


def is_swish(node: ir.Node) -> bool:
    """Whether `node` multiplies a tensor by a function of itself, as x * Sigmoid(x) does."""
    if node.op_type != "Mul" or node.domain:
        return False
    left, right = map(source_of, node.inputs)
    return any(
        gate is not None
        and (maker := gate.producer()) is not None
        and maker.op_type in {"Sigmoid", "HardSigmoid"}
        and source_of(maker.inputs[0]) is whole
        for whole, gate in ((left, right), (right, left))
    )


def backbone(value: ir.Value | None, integer: Collection[ir.Node]) -> ir.Node | None:
    """The int8 convolution whose kernel can go on to an Add that reads `value`."""
    value = source_of(value)
    node = value.producer() if value is not None else None
    while node is not None and not node.domain:
        if node.op_type in _CONVOLUTIONS:
            return node if node in integer else None
        if node.op_type in BOUNDS or same_numbers(node):
            value = source_of(node.inputs[0])
        elif is_swish(node):
            value = _swished(node)
        else:
            return None
        node = value.producer() if value is not None else None
    return None


def _swished(node: ir.Node) -> ir.Value | None:
    """What a swish is a function of."""
    left, right = map(source_of, node.inputs)
    maker = right.producer() if right is not None else None
    direct = maker is not None and maker.inputs and source_of(maker.inputs[0]) is left
    return left if direct else right


def fused_input(node: ir.Node, integer: Collection[ir.Node]) -> int | None:
    """The index of the input of an Add that stays float because a convolution goes on to it.

    Args:
        node: An Add of two tensors.
        integer: The layers that run on integers.

    Returns:
        0 or 1; None when the Add is no end of a residual branch.
    """
    values = [source_of(value) for value in node.inputs]
    if any(value is None or constant(value) is not None for value in values):
        return None
    if any(value.producer() is None for value in values if value is not None):
        return None
    ways = [_distances(value) for value in values if value is not None]
    # A convolution that the other branch depends on too is no end of a branch.
    found = [
        node is not None and node.outputs[0] not in other
        for node, other in zip(
            (backbone(value, integer) for value in values), reversed(ways), strict=True
        )
    ]
    if not any(found):
        return None
    if not all(found):
        return found.index(True)
    common = min(
        (other for other in ways[0] if other in ways[1]),
        key=lambda other: ways[0][other] + ways[1][other],
        default=None,
    )
    return 0 if common is not None and ways[0][common] > ways[1][common] else 1


def _distances(start: ir.Value) -> dict[ir.Value, int]:
    """Every tensor that `start` depends on → how many steps back it is, pairs not counted."""
    known, waiting = {start: 0}, deque([start])
    while waiting:
        value = waiting.popleft()
        maker = value.producer()
        for other in map(source_of, () if maker is None else maker.inputs):
            if other is not None and other not in known and constant(other) is None:
                known[other] = known[value] + 1
                waiting.append(other)
    return known

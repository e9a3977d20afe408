"""Words in which patterns of primitive operators are described."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qconvert.graph import constant

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Product", "close", "made_by", "operand_and_number", "product", "scalar"]


def made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node behind `value` when it is a standard `op_type`."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and not node.domain else None


def scalar(value: ir.Value | None) -> float | None:
    """The one number a constant holds; None for more, or for what is computed."""
    array = constant(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiu":
        return None
    return float(array.reshape(-1).astype(np.float64)[0])


def close(number: float | None, expected: float) -> bool:
    """Whether a number is the one a formula has, to the digits exporters write."""
    return number is not None and abs(number - expected) <= 1e-4 * max(1.0, abs(expected))


def operand_and_number(node: ir.Node | None) -> tuple[ir.Value, float] | None:
    """The computed and the constant side of a binary operator with a scalar constant."""
    if node is None or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    left, right = scalar(first), scalar(second)
    if right is not None and left is None and first is not None:
        return first, right
    if left is not None and right is None and second is not None:
        return second, left
    return None


class Product(NamedTuple):
    """A tree of Mul, and Div by numbers, as one product.

    Attributes:
        factors: What is computed.
        number: What is constant.
    """

    factors: list[ir.Value]
    number: float


def product(root: ir.Node, limit: int = 4) -> Product:
    """The product that `root` computes, at most `limit` factors deep."""
    factors: list[ir.Value] = []
    number = 1.0
    open_ends: list[ir.Value] = [root.outputs[0]]
    steps = 0
    while open_ends:
        value = open_ends.pop()
        node = value.producer()
        kind = node.op_type if node is not None and not node.domain else ""
        known = scalar(value)
        if known is not None:
            number *= known
        elif node is None or kind not in {"Mul", "Div"} or steps >= limit:
            factors.append(value)
        elif kind == "Div":
            divisor = scalar(node.inputs[1])
            if divisor is None or divisor == 0 or node.inputs[0] is None:
                factors.append(value)
                continue
            steps += 1
            number /= divisor
            open_ends.append(node.inputs[0])
        else:
            steps += 1
            open_ends.extend(part for part in node.inputs if part is not None)
    return Product(factors, number)

"""Fold constants that multiply or shift the channels of a linear layer into it.

    (W x + b) * f = (f W) x + f b          (W x + b) / d = (W / d) x + b / d
    (W x + b) + c = W x + (b + c)          c - (W x + b) = (-W) x + (c - b)

f and c are numbers or [C, 1, 1]-like constants: they vary along the channel axis only. A Caffe
Scale layer is the pair Mul, Add; chains fold one after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from typing_extensions import override

from qconvert.graph import constant, shape_of
from qconvert.passes.linear import LINEAR, channels, scale_outputs, why_not_linear, why_not_scale
from qconvert.passes.rewrite import NodePass, absorb, known_shape

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

    F64 = npt.NDArray[np.float64]

__all__ = ["FoldAffine", "per_channel"]

_OPERATORS: Final = frozenset({"Mul", "Add", "Sub", "Div"})


def per_channel(array: npt.NDArray[np.generic], rank: int, count: int) -> F64 | None:
    """`array` as [count] float64, when it varies along axis 1 of a rank-`rank` tensor only.

    Returns None when it varies along another axis, or when broadcasting it would change the shape.
    """
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(size != 1 for axis, size in enumerate(shape) if axis != 1) or shape[1] not in (1, count):
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (count,))


class _Operands(NamedTuple):
    """A binary operator with one constant side."""

    source: ir.Value
    constant: npt.NDArray[np.generic]
    constant_first: bool


def _operands(node: ir.Node) -> _Operands | None:
    """The varying and the constant side of `node`; None when it has not one of each."""
    first, second = node.inputs
    left, right = constant(first), constant(second)
    if first is not None and left is None and right is not None:
        return _Operands(first, right, constant_first=False)
    if second is not None and right is None and left is not None:
        return _Operands(second, left, constant_first=True)
    return None


def _factor_offset(node: ir.Node, operands: _Operands, vector: F64) -> tuple[F64, F64]:
    """`node` as y * factor + offset."""
    ones, zeros = np.ones_like(vector), np.zeros_like(vector)
    if node.op_type == "Mul":
        return vector, zeros
    if node.op_type == "Div":
        with np.errstate(divide="ignore"):
            return 1.0 / vector, zeros
    if node.op_type == "Add":
        return ones, vector
    return (-ones, vector) if operands.constant_first else (ones, -vector)


class FoldAffine(NodePass):
    """Remove Mul, Add, Sub and Div by channel constants after Conv, ConvTranspose and Gemm."""

    step = "fold_affine"

    @override
    def matches(self, node: ir.Node) -> bool:
        if node.op_type not in _OPERATORS or node.domain:
            return False
        operands = _operands(node)
        if operands is None:
            return False
        producer = operands.source.producer()
        if producer is None or producer.domain or producer.op_type not in LINEAR:
            return False
        return known_shape(operands.source) is not None

    @override
    def why_not(self, node: ir.Node) -> str | None:
        operands = _operands(node)
        assert operands is not None
        reason = why_not_linear(operands.source, node)
        if reason is not None:
            return reason
        layer = operands.source.producer()
        assert layer is not None
        rank = len(shape_of(operands.source))
        vector = per_channel(operands.constant, rank, channels(layer))
        if vector is None:
            return "its constant varies along more than the channels"
        if node.op_type == "Div" and operands.constant_first:
            return "it divides by the layer's output"
        factor, offset = _factor_offset(node, operands, vector)
        if not np.isfinite(offset).all():
            return "its constant is not finite"
        return why_not_scale(layer, factor)

    @override
    def rewrite(self, node: ir.Node) -> None:
        operands = _operands(node)
        assert operands is not None
        layer = operands.source.producer()
        assert layer is not None
        vector = per_channel(operands.constant, len(shape_of(operands.source)), channels(layer))
        assert vector is not None
        scale_outputs(layer, *_factor_offset(node, operands, vector))
        absorb(node, operands.source)

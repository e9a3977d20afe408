"""Recognize LayerNormalization written out in primitive operators.

    d = x - mean(x),   y = d / sqrt(mean(d^2) + eps) * gamma + beta

with both means over the last axes. LayerNormalization computes the same in one node.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from typing_extensions import override

from qconvert.graph import constant, sole_consumer
from qconvert.passes.match import made_by, operand_and_number, scalar
from qconvert.passes.rewrite import NodePass, add_initializer, known_shape

__all__ = ["RecognizeLayerNorm"]


class _Core(NamedTuple):
    """The normalization, before its affine part."""

    source: ir.Value
    axis: int
    epsilon: float


def _trailing_axis(mean: ir.Node, rank: int) -> int | None:
    """The first axis a ReduceMean averages over, when it averages over all from there on."""
    if mean.attributes.get_int("keepdims", 1) != 1:
        return None
    given = constant(mean.inputs[1]) if len(mean.inputs) > 1 and mean.inputs[1] else None
    if given is None:
        return None
    axes = sorted(int(axis) % rank for axis in given.reshape(-1).tolist())
    first = axes[0] if axes else rank
    return first if axes and axes == list(range(first, rank)) else None


def _squared(value: ir.Value | None) -> ir.Value | None:
    """d, when `value` is d * d or d^2."""
    power = made_by(value, "Pow")
    if power is not None:
        return power.inputs[0] if scalar(power.inputs[1]) == 2 else None
    product = made_by(value, "Mul")
    if product is None or product.inputs[0] is not product.inputs[1]:
        return None
    return product.inputs[0]


def _core(division: ir.Node) -> _Core | None:
    """The normalization whose division is `division`."""
    deviation = division.inputs[0]
    root = made_by(division.inputs[1], "Sqrt")
    shifted = operand_and_number(made_by(root.inputs[0], "Add")) if root is not None else None
    variance = made_by(shifted[0], "ReduceMean") if shifted is not None else None
    centre = made_by(deviation, "Sub")
    if shifted is None or variance is None or centre is None or centre.inputs[0] is None:
        return None
    if not _same_deviation(_squared(variance.inputs[0]), centre):
        return None
    source, shape = centre.inputs[0], known_shape(centre.inputs[0])
    mean = made_by(centre.inputs[1], "ReduceMean")
    if mean is None or mean.inputs[0] is not source or shape is None:
        return None
    axis = _trailing_axis(mean, len(shape))
    if axis is None or axis != _trailing_axis(variance, len(shape)):
        return None
    return _Core(source, axis, shifted[1])


def _same_deviation(value: ir.Value | None, centre: ir.Node) -> bool:
    """Whether `value` is the deviation that `centre` computes, or the same subtraction again."""
    if value is centre.outputs[0]:
        return True
    other = made_by(value, "Sub")
    return other is not None and all(
        one is two for one, two in zip(other.inputs, centre.inputs, strict=True)
    )


def _follow(
    value: ir.Value, op_type: str, dims: tuple[int, ...]
) -> tuple[ir.Node, np.ndarray] | None:
    """The node that alone reads `value` and joins it with a constant over `dims`, and that."""
    reader = sole_consumer(value)
    if reader is None or reader.op_type != op_type or reader.domain:
        return None
    for part in reader.inputs:
        array = constant(part)
        if array is not None and _fits(array.shape, dims):
            return reader, np.broadcast_to(array.reshape(array.shape[-len(dims) :]), dims)
    return None


def _fits(shape: tuple[int, ...], dims: tuple[int, ...]) -> bool:
    """Whether a constant varies along the normalized axes only."""
    extra = shape[: -len(dims)] if len(shape) > len(dims) else ()
    tail = shape[len(extra) :]
    return all(size == 1 for size in extra) and all(
        size in (1, dim) for size, dim in zip(tail[::-1], dims[::-1], strict=False)
    )


class RecognizeLayerNorm(NodePass):
    """Put LayerNormalization in the place of its written-out form."""

    step = "recognize_layernorm"

    @override
    def matches(self, node: ir.Node) -> bool:
        return node.op_type == "Div" and not node.domain and _core(node) is not None

    @override
    def rewrite(self, node: ir.Node) -> None:
        core, graph = _core(node), node.graph
        assert core is not None
        assert isinstance(graph, ir.Graph)
        shape = known_shape(core.source)
        assert shape is not None
        dims = shape[core.axis :]
        last, gamma, beta = node, np.ones(dims, np.float32), None
        scaled = _follow(node.outputs[0], "Mul", dims)
        if scaled is not None:
            last, gamma = scaled
        shifted = _follow(last.outputs[0], "Add", dims)
        if shifted is not None:
            last, beta = shifted
        inputs = [core.source, add_initializer(graph, f"{node.name}.weight", gamma.copy())]
        if beta is not None:
            inputs.append(add_initializer(graph, f"{node.name}.bias", beta.copy()))
        last.resize_inputs(len(inputs))
        for index, value in enumerate(inputs):
            last.replace_input_with(index, value)
        last.op_type = "LayerNormalization"
        last.attributes.clear()
        last.attributes["axis"] = ir.AttrInt64("axis", core.axis)
        last.attributes["epsilon"] = ir.AttrFloat32("epsilon", core.epsilon)

"""Sums and products of activations, joins, and the same numbers on another grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.backends.raw.draft import NotInteger, Work
from qconvert.backends.raw.factors import each_factor, summed_factors

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.backends.raw.draft import Draft, Target
    from qconvert.integer.program import Tensor

__all__ = ["add", "concat", "mul", "requantize"]


def _grid_scale(target: Target) -> float:
    """The scale a result is to have."""
    if target.grid is None:
        raise NotInteger("the model gives its result no scale")
    return target.grid.scale


def _inputs(draft: Draft, node: ir.Node) -> list[Tensor]:
    """What a node reads, all of it on integers."""
    tensors = [draft.tensor_of(value) for value in node.inputs]
    if any(len(tensor.scale) != 1 for tensor in tensors):
        raise NotInteger("an input has several scales")
    return tensors


def _reach(tensor: Tensor) -> int:
    """The largest distance of a code from the zero point."""
    return max(tensor.high - tensor.zero_point, tensor.zero_point - tensor.low, 1)


def add(draft: Draft, node: ir.Node, target: Target) -> Tensor:
    """An Add, or a Sub, whose second input counts negative."""
    scale = _grid_scale(target)
    tensors = _inputs(draft, node)
    multipliers, shift = summed_factors(draft, [tensor.scale[0] / scale for tensor in tensors])
    signs = [1, -1] if node.op_type == "Sub" else [1] * len(tensors)
    reach = sum(int(m) * _reach(t) for m, t in zip(multipliers, tensors, strict=True))
    return draft.layer(
        str(node.name),
        Work(
            "add",
            clamp=target.clamp,
            parameters=draft.scaling(str(node.name), multipliers, np.array([shift])),
            attributes={"signs": signs},
            bits=reach.bit_length() + 1,
        ),
        tensors,
        draft.activation(target),
    )


def mul(draft: Draft, node: ir.Node, target: Target) -> Tensor:
    """A Mul of two activations."""
    scale = _grid_scale(target)
    first, second = _inputs(draft, node)
    factors = each_factor(draft, [first.scale[0] * second.scale[0] / scale])
    reach = _reach(first) * _reach(second)
    return draft.layer(
        str(node.name),
        Work(
            "mul",
            clamp=target.clamp,
            parameters=draft.scaling(str(node.name), *factors),
            bits=reach.bit_length() + 1,
        ),
        [first, second],
        draft.activation(target),
    )


def concat(draft: Draft, node: ir.Node, target: Target) -> Tensor:
    """A Concat; a multiplier per input where an input is on another grid than the output."""
    scale = _grid_scale(target)
    tensors, grid, parameters = _inputs(draft, node), target.grid, {}
    assert grid is not None
    if not all(grid.same(tensor) for tensor in tensors):
        factors = each_factor(draft, [tensor.scale[0] / scale for tensor in tensors])
        parameters = draft.scaling(str(node.name), *factors)
    axis = node.attributes.get_int("axis", 1) % len(target.shape)
    return draft.layer(
        str(node.name),
        Work("concat", clamp=target.clamp, parameters=parameters, attributes={"axis": axis}),
        tensors,
        draft.activation(target),
    )


def requantize(draft: Draft, name: str, source: Tensor, target: Target) -> Tensor:
    """The numbers of `source` on the target's grid, within its clamp."""
    scale, grid = _grid_scale(target), target.grid
    assert grid is not None
    if len(source.scale) != 1:
        raise NotInteger("its input has several scales")
    result = draft.activation(target)
    if grid.same(source):
        return draft.layer(name, Work("clamp", clamp=target.clamp), [source], result)
    factors = each_factor(draft, [source.scale[0] / scale])
    return draft.layer(
        name,
        Work(
            "requantize",
            clamp=target.clamp,
            parameters=draft.scaling(name, *factors),
            bits=_reach(source).bit_length() + 1,
        ),
        [source],
        result,
    )

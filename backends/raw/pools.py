"""Pools: the largest code of a window, or the mean of its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qconvert.backends.raw.draft import NotInteger, Target, Work, value_shape
from qconvert.backends.raw.elementwise import requantize
from qconvert.backends.raw.factors import each_factor
from qconvert.backends.raw.windows import window
from qconvert.graph import constant

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.backends.raw.draft import Draft
    from qconvert.integer.program import Tensor

__all__ = ["average", "maximum"]


def maximum(draft: Draft, node: ir.Node, target: Target) -> Tensor:
    """A MaxPool or GlobalMaxPool."""
    source = draft.tensor_of(node.inputs[0])
    frame = _frame(node, source)
    if any(step != 1 for step in frame.pop("dilations")):
        raise NotInteger("its kernel has gaps")
    name, grid = str(node.name), target.grid
    if grid is None:
        raise NotInteger("the model gives its result no scale")
    if grid.same(source):
        result = draft.activation(target)
        return draft.layer(
            name, Work("max_pool", clamp=target.clamp, attributes=frame), [source], result
        )
    inner = draft.like(source, f"{target.name}/pooled", target.shape)
    draft.layer(
        name, Work("max_pool", clamp=(source.low, source.high), attributes=frame), [source], inner
    )
    return requantize(draft, f"{name}/requantize", inner, target)


def average(draft: Draft, node: ir.Node, target: Target) -> Tensor:
    """An AveragePool, a GlobalAveragePool, or a ReduceMean over whole maps."""
    source = draft.tensor_of(node.inputs[0])
    if len(source.scale) != 1 or target.grid is None:
        raise NotInteger("its input or result has no one scale")
    name, pooled = str(node.name), (*source.shape[:2], 1, 1)
    if node.op_type == "ReduceMean" and _axes(node) != {2, 3}:
        raise NotInteger("it is no mean over whole maps")
    frame = _frame(node, source)
    counted = any(frame["pads"]) and not node.attributes.get_int("count_include_pad", 0)
    if any(step != 1 for step in frame.pop("dilations")) or _overhangs(node, frame, counted):
        raise NotInteger("its windows reach beyond its padding, or have gaps")
    size = frame["kernel"][0] * frame["kernel"][1]
    counts = range(1, size + 1) if counted else [size]
    ratio = source.scale[0] / target.grid.scale
    factors = each_factor(draft, [ratio / count for count in counts])
    shape = target.shape if len(target.shape) == 4 else pooled
    flat = shape != target.shape
    result = draft.activation(
        Target(f"{target.name}/pooled" if flat else target.name, shape, target.grid, target.clamp)
    )
    reach = size * max(source.high - source.zero_point, source.zero_point - source.low, 1)
    draft.layer(
        name,
        Work(
            "avg_pool",
            clamp=target.clamp,
            parameters=draft.scaling(name, *factors),
            attributes={**frame, "divisor": "counted" if counted else "window"},
            bits=reach.bit_length() + 1,
        ),
        [source],
        result,
    )
    if not flat:
        return result
    return draft.layer(f"{name}/reshape", Work("reshape"), [result], draft.activation(target))


def _axes(node: ir.Node) -> set[int]:
    """The axes a ReduceMean goes over."""
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    given = node.attributes.get_ints("axes", ()) if axes is None else axes.reshape(-1).tolist()
    return {int(axis) % 4 for axis in given}


def _frame(node: ir.Node, source: Tensor) -> dict[str, Any]:
    """Geometry of a pool."""
    if len(source.shape) != 4:
        raise NotInteger("it has other than two spatial axes")
    if node.op_type in {"GlobalAveragePool", "GlobalMaxPool", "ReduceMean"}:
        ones, none = [1, 1], [0, 0, 0, 0]
        return {"kernel": list(source.shape[2:]), "strides": ones, "dilations": ones, "pads": none}
    kernel = node.attributes.get_ints("kernel_shape", ())
    return window(node, source.shape, value_shape(node.outputs[0]), kernel)


def _overhangs(node: ir.Node, frame: dict[str, Any], counted: bool) -> bool:
    """Whether windows that count their padding reach beyond it: their divisor would vary."""
    given = list(node.attributes.get_ints("pads", (0, 0, 0, 0)))
    rounded = bool(node.attributes.get_int("ceil_mode", 0))
    return rounded and not counted and any(np.subtract(frame["pads"], given) > 0)

"""Operators that move codes and change none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from qconvert.backends.raw.draft import NotInteger, Work, axes_of
from qconvert.backends.raw.elementwise import requantize
from qconvert.graph import constant
from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from qconvert.backends.raw.draft import Draft, Target
    from qconvert.integer.program import Op, Tensor

__all__ = ["MOVES", "move"]

_Step = tuple["Op", dict[str, Any], tuple[int, ...], str | None]
"""Operator, attributes, shape of the result, letters of its axes."""


def move(draft: Draft, node: ir.Node, value: ir.Value, target: Target) -> Tensor:
    """Lower one of `MOVES`.

    Args:
        draft: Gets the layers.
        node: The operator.
        value: Which of its outputs.
        target: What to make.
    """
    source = draft.tensor_of(node.inputs[0])
    if target.grid is None:
        raise NotInteger("the model gives its result no scale")
    steps = MOVES[node.op_type](node, value, source)
    if not steps:
        return requantize(draft, str(node.name), source, target)
    name, current = str(node.name), source
    for index, (op, attributes, shape, axes) in enumerate(steps):
        last = index == len(steps) - 1
        fits = target.grid.same(source) and _within(source, target)
        label = target.name if last and fits else f"{target.name}/step_{index}"
        fresh = draft.like(source, label, shape, axes)
        part = name if index == 0 else f"{name}/step_{index}"
        current = draft.layer(part, Work(op, attributes=attributes), [current], fresh)
        if last and fits:
            return current
    return requantize(draft, f"{name}/requantize", current, target)


def _within(source: Tensor, target: Target) -> bool:
    """Whether every code of the source may stay as it is."""
    low, high = target.clamp
    return low <= source.low and source.high <= high


def _ints(value: ir.Value | None) -> list[int] | None:
    """A constant list of integers."""
    array = constant(value)
    return None if array is None else [int(entry) for entry in array.reshape(-1)]


def _reshape(node: ir.Node, value: ir.Value, source: Tensor) -> list[_Step]:
    del node, source
    shape = _shape(value)
    axes = None if len(shape) < 3 else "NXYZUVWST"[: len(shape)]
    return [("reshape", {}, shape, axes)]


def _shape(value: ir.Value) -> tuple[int, ...]:
    assert value.shape is not None
    return tuple(int(dim) for dim in value.shape.numpy())


def _transpose(node: ir.Node, value: ir.Value, source: Tensor) -> list[_Step]:
    order = list(node.attributes.get_ints("perm", tuple(reversed(range(len(source.shape))))))
    return [_transposed(order, _shape(value), source.axes)]


def _transposed(order: Sequence[int], shape: tuple[int, ...], axes: str) -> _Step:
    letters = "".join(axes[axis] for axis in order)
    return ("transpose", {"order": [int(axis) for axis in order]}, shape, letters)


def _slice(node: ir.Node, value: ir.Value, source: Tensor) -> list[_Step]:
    del value
    rank = len(source.shape)
    starts, ends = (_ints(node.inputs[i]) for i in (1, 2))
    if starts is None or ends is None:
        raise NotInteger("where it cuts is computed at run time")
    axes = _ints(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] else None
    steps = _ints(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] else None
    shape = list(source.shape)
    found: list[_Step] = []
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (axes[i] if axes else i) % rank
        places = range(shape[axis])[
            slice(start, _end(end, steps[i] if steps else 1), steps[i] if steps else 1)
        ]
        if len(places) == shape[axis] and places.step == 1:
            continue
        shape[axis] = len(places)
        attributes = {"axis": axis, "start": places.start, "step": places.step}
        found.append(("slice", attributes, tuple(shape), source.axes))
    return found


def _end(end: int, step: int) -> int | None:
    """An end as Python means it: far below 0 is the beginning, which has no number."""
    return None if step < 0 and end < -(2**30) else end


def _split(node: ir.Node, value: ir.Value, source: Tensor) -> list[_Step]:
    axis = node.attributes.get_int("axis", 0) % len(source.shape)
    start = 0
    for output in node.outputs:
        if output is value:
            break
        start += _shape(output)[axis]
    attributes = {"axis": axis, "start": start, "step": 1}
    return [("slice", attributes, _shape(value), source.axes)]


def _gather(node: ir.Node, value: ir.Value, source: Tensor) -> list[_Step]:
    axis = node.attributes.get_int("axis", 0) % len(source.shape)
    indices = constant(node.inputs[1])
    if indices is None or indices.ndim > 1:
        raise NotInteger("its indices are no list known beforehand")
    size = source.shape[axis]
    picked = [int(index) % size for index in indices.reshape(-1)]
    kept = (*source.shape[:axis], len(picked), *source.shape[axis + 1 :])
    steps: list[_Step] = [("gather", {"axis": axis, "indices": picked}, kept, source.axes)]
    if picked == list(range(picked[0], picked[0] + len(picked))):
        attributes = {"axis": axis, "start": picked[0], "step": 1}
        steps = [("slice", attributes, kept, source.axes)]
    if indices.ndim == 0:
        steps.append(("reshape", {}, _shape(value), axes_of(len(kept) - 1)))
    return steps


def _depth_to_space(node: ir.Node, value: ir.Value, source: Tensor) -> list[_Step]:
    block = node.attributes.get_int("blocksize", 1)
    _, channels, height, width = source.shape
    inner = channels // (block * block)
    if node.attributes.get_string("mode", "DCR") == "DCR":
        apart, order = (1, block, block, inner, height, width), (0, 3, 4, 1, 5, 2)
    else:
        apart, order = (1, inner, block, block, height, width), (0, 1, 4, 2, 5, 3)
    return _regrouped(apart, order, _shape(value))


def _space_to_depth(node: ir.Node, value: ir.Value, source: Tensor) -> list[_Step]:
    block = node.attributes.get_int("blocksize", 1)
    _, channels, height, width = source.shape
    apart = (1, channels, height // block, block, width // block, block)
    return _regrouped(apart, (0, 3, 5, 1, 2, 4), _shape(value))


def _regrouped(
    apart: tuple[int, ...], order: tuple[int, ...], shape: tuple[int, ...]
) -> list[_Step]:
    """Take axes apart, reorder them, put them together."""
    middle = tuple(apart[axis] for axis in order)
    letters = "NXYZUV"
    return [
        ("reshape", {}, apart, letters),
        _transposed(order, middle, letters),
        ("reshape", {}, shape, "NCHW"),
    ]


def _pad(node: ir.Node, value: ir.Value, source: Tensor) -> list[_Step]:
    rank = len(source.shape)
    if node.attributes.get_string("mode", "constant") != "constant":
        raise NotInteger("it pads with other than a constant")
    pads = _ints(node.inputs[1])
    fill = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.zeros(1)
    if pads is None or fill is None:
        raise NotInteger("its padding is computed at run time")
    axes = _ints(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] else list(range(rank))
    assert axes is not None
    if min(pads, default=0) < 0 or len(pads) != 2 * len(axes):
        raise NotInteger("its padding cuts")
    pairs = [[0, 0] for _ in range(rank)]
    for index, axis in enumerate(axes):
        pairs[axis % rank] = [pads[index], pads[index + len(axes)]]
    real = float(fill.reshape(-1)[0])
    code = round(real / source.scale[0]) + source.zero_point
    if not source.low <= code <= source.high:
        raise NotInteger(f"it pads with {real:g}, which its input cannot hold")
    return [("pad", {"pads": pairs, "pad_value": code}, _shape(value), source.axes)]


def _resize(node: ir.Node, value: ir.Value, source: Tensor) -> list[_Step]:
    mode = node.attributes.get_string("mode", "nearest")
    shape = _shape(value)
    if mode != "nearest":
        raise NotInteger(f"it interpolates ({mode})")
    if shape[:2] != source.shape[:2]:
        raise NotInteger("it resizes channels")
    height, width = source.shape[2:]
    if height * width >= 1 << 24:
        raise NotInteger("its map is too large")
    picked = _places(node, source.shape, shape)
    rows, columns = picked[:, 0] // width, picked[0] % width
    if not np.array_equal(picked, rows[:, None] * width + columns[None]):
        raise NotInteger("it does not choose whole rows and columns")
    factors = (shape[2] // height, shape[3] // width)
    plain = [
        np.arange(size) // max(factor, 1) for size, factor in zip(shape[2:], factors, strict=True)
    ]
    if np.array_equal(rows, plain[0]) and np.array_equal(columns, plain[1]):
        return [("resize", {"scales": list(factors)}, shape, source.axes)]
    attributes = {"rows": rows.tolist(), "columns": columns.tolist()}
    return [("resize", attributes, shape, source.axes)]


def _places(
    node: ir.Node, before: tuple[int, ...], after: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """Which input element each output element is, [rows, columns]: onnxruntime says so."""
    height, width = before[2:]
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape((1, 1, height, width)))
    y = ir.val("y", ir.DataType.FLOAT, ir.Shape((1, 1, *after[2:])))
    sizes = ir.tensor(np.array([1, 1, *after[2:]], np.int64), name="sizes")
    given = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    held: list[ir.Value | None] = [x, None]
    if given is not None and given.size == 4:
        tensor = ir.tensor(given.astype(np.float32), name="scales")
        held.append(ir.val("scales", tensor.dtype, tensor.shape.numpy(), const_value=tensor))
    else:
        held += [None, ir.val("sizes", sizes.dtype, (4,), const_value=sizes)]
    attributes = [a for name, a in node.attributes.items() if name not in {"axes", "antialias"}]
    fresh = ir.Node("", "Resize", held, attributes, outputs=[y])
    stored = [value for value in held[1:] if value is not None]
    graph = ir.Graph(
        [x], [y], nodes=[fresh], initializers=stored, name="places", opset_imports={"": 21}
    )
    ramp = np.arange(math.prod(before[2:]), dtype=np.float32).reshape(1, 1, height, width)
    with OnnxRuntime(ir.Model(graph, ir_version=10)) as runtime:
        return np.asarray(runtime.run({"x": ramp})["y"][0, 0], dtype=np.int64)


MOVES = {
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Identity": lambda *_: [],
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Pad": _pad,
    "Resize": _resize,
}
"""ONNX operator → how its codes move."""

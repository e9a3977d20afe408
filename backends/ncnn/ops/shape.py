"""Operators that move numbers about without changing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.backends.ncnn.net import Blob, Shape, is_regular, view
from qconvert.backends.ncnn.ops.embed import embed
from qconvert.backends.ncnn.permutation import permute
from qconvert.backends.ncnn.registry import Refusal, lowers

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context
    from qconvert.formats.ncnn_param import Param


@lowers(
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Dropout",
    to="Reshape, or nothing",
)
def _same_numbers(ctx: Context, node: ir.Node) -> None:
    """The same numbers in the same order: `bind` adds a Reshape where the axes differ."""
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise Refusal("its mask is used")
    mode = node.inputs[2] if node.op_type == "Dropout" and len(node.inputs) > 2 else None
    if mode is not None and any(ctx.integers(mode, "training mode")):
        raise Refusal("it is in training mode")
    ctx.bind(node.outputs[0], ctx.blob(node.inputs[0]))


@lowers("Cast", to="nothing (float to float)")
def _cast(ctx: Context, node: ir.Node) -> None:
    ctx.bind(node.outputs[0], ctx.blob(node.inputs[0]))


@lowers("Transpose", to="Permute")
def _transpose(ctx: Context, node: ir.Node) -> None:
    shape = ctx.shape(node.inputs[0])
    default = tuple(reversed(range(len(shape))))
    order = tuple(int(axis) for axis in node.attributes.get_ints("perm", default) or default)
    ctx.bind(node.outputs[0], permute(ctx, ctx.blob(node.inputs[0]), shape, order))


@lowers("Concat", to="Concat")
def _concat(ctx: Context, node: ir.Node) -> None:
    """Concat; over a batch axis that does not stay 1 the inputs keep all their axes."""
    out = ctx.shape(node.outputs[0])
    axis = node.attributes.get_int("axis", 0) % len(out)
    values = [value for value in node.inputs if value is not None and 0 not in ctx.shape(value)]
    keep_all = out[0] != 1 or len(out) == 1
    blobs = []
    for index, value in enumerate(values):
        shape = ctx.shape(value)
        wanted = shape if keep_all else shape[1:]
        blobs.append(ctx.reshape(ctx.blob(value), wanted, f"input_{index}"))
    if len(blobs) == 1:
        ctx.bind(node.outputs[0], blobs[0])
        return
    where = axis if keep_all else axis - 1
    if where < 0:
        raise Refusal("it joins empty tensors")
    shape = out if keep_all else out[1:]
    ctx.bind(node.outputs[0], ctx.layer("Concat", blobs, {0: where}, shape=shape))


@lowers("Split", to="Slice")
def _split(ctx: Context, node: ir.Node) -> None:
    x = node.inputs[0]
    shape = ctx.shape(x)
    axis = node.attributes.get_int("axis", 0) % len(shape)
    sizes = tuple(ctx.shape(output)[axis] for output in node.outputs)
    if len(sizes) == 1:
        ctx.bind(node.outputs[0], ctx.blob(x))
        return
    blob = ctx.blob(x)
    dropped = len(shape) - len(blob.shape)
    if axis < dropped:
        blob, dropped = ctx.reshape(blob, shape, "whole"), 0
    shapes = [_with(blob.shape, axis - dropped, size) for size in sizes]
    draft = ctx.draft("Slice", [blob], {0: sizes, 1: axis - dropped}, shapes=shapes)
    for output, result in zip(node.outputs, draft.outputs, strict=True):
        ctx.bind(output, result)


def _with(shape: Shape, axis: int, size: int) -> Shape:
    """`shape` with another size of one axis."""
    return (*shape[:axis], size, *shape[axis + 1 :])


@lowers("Slice", to="Crop (Pooling for strides)")
def _slice(ctx: Context, node: ir.Node) -> None:
    """Slice with constant bounds. A stride is a 1x1 pool that skips."""
    x = node.inputs[0]
    shape, out = ctx.shape(x), ctx.shape(node.outputs[0])
    starts = ctx.integers(node.inputs[1], "start")
    given = [node.inputs[i] if len(node.inputs) > i else None for i in (3, 4)]
    axes = ctx.integers(given[0], "axis") if given[0] is not None else tuple(range(len(starts)))
    steps = ctx.integers(given[1], "step") if given[1] is not None else (1,) * len(starts)
    blob = ctx.blob(x)
    dropped = len(shape) - len(blob.shape) if shape else 0
    bounds = [(0, size) for size in blob.shape]
    strides = {}
    for raw, start, step in zip(axes, starts, steps, strict=True):
        axis = raw % len(shape)
        if step < 0:
            raise Refusal("it runs backwards")
        size = shape[axis]
        begin = min(max(start + size if start < 0 else start, 0), size)
        end = begin + (out[axis] - 1) * step + 1
        if out[axis] == size:
            continue
        if axis < dropped:
            raise Refusal("it cuts the batch axis")
        bounds[axis - dropped] = (begin, end)
        if step > 1:
            strides[axis - dropped] = step
    blob = cut(ctx, blob, bounds, "crop" if strides else "")
    for axis, step in strides.items():
        blob = _every(ctx, blob, axis, step, f"stride_{axis}")
    ctx.bind(node.outputs[0], blob)


def cut(ctx: Context, blob: Blob, bounds: list[tuple[int, int]], part: str) -> Blob:
    """Elements from bounds[k][0] to bounds[k][1] (exclusive) of every ncnn axis k."""
    axes = [k for k, size in enumerate(blob.shape) if bounds[k] != (0, size)]
    if not axes:
        return blob
    params: dict[int, Param] = {
        9: tuple(bounds[k][0] for k in axes),
        10: tuple(bounds[k][1] for k in axes),
        11: tuple(axes),
    }
    return ctx.layer("Crop", [blob], params, shape=tuple(e - b for b, e in bounds), part=part)


def crop(ctx: Context, blob: Blob, axis: int, bounds: tuple[int, int], part: str) -> Blob:
    """Elements `bounds[0]` to `bounds[1]` (exclusive) of one ncnn axis."""
    begin, end = bounds
    if (begin, end) == (0, blob.shape[axis]):
        return blob
    params: dict[int, Param] = {9: (begin,), 10: (end,), 11: (axis,)}
    return ctx.layer("Crop", [blob], params, shape=_with(blob.shape, axis, end - begin), part=part)


def _every(ctx: Context, blob: Blob, axis: int, step: int, part: str) -> Blob:
    """Every `step`-th element of one axis: an image [before, axis, after], pooled 1x1."""
    shape = blob.shape
    before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    image = ctx.reshape(blob, (before, shape[axis], after), f"{part}/image")
    taken = -(-shape[axis] // step)
    params: dict[int, Param] = {0: 0, 1: 1, 2: 1, 12: step, 5: 1}
    pooled = ctx.layer("Pooling", [image], params, shape=(before, taken, after), part=part)
    return ctx.reshape(pooled, _with(shape, axis, taken), f"{part}/back")


@lowers("Gather", to="Crop, Concat; Embed for indices from an input")
def _gather(ctx: Context, node: ir.Node) -> None:
    """Gather with constant indices, as runs of neighbours; rows of a table by an input."""
    x, indices = node.inputs[0], ctx.constant(node.inputs[1])
    if indices is None:
        embed(ctx, node)
        return
    shape = ctx.shape(x)
    axis = node.attributes.get_int("axis", 0) % len(shape)
    blob = ctx.blob(x)
    where = axis - (len(shape) - len(blob.shape))
    if where < 0 or not is_regular(shape):
        outer, inner = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
        sizes = (shape[axis], inner) if outer == 1 else (outer, shape[axis], inner)
        blob, where = ctx.reshape(blob, sizes, "whole"), int(outer != 1)
    picks = [int(i) % shape[axis] for i in indices.reshape(-1)]
    runs: list[list[int]] = []
    for pick in picks:
        if runs and pick == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([pick, pick + 1])
    if len(runs) > 64:
        raise Refusal(f"it picks {len(runs)} separate places")
    parts = [crop(ctx, blob, where, (a, b), f"part_{i}") for i, (a, b) in enumerate(runs)]
    if len(parts) == 1:
        ctx.bind(node.outputs[0], parts[0])
        return
    joined = ctx.layer("Concat", parts, {0: where}, shape=_with(blob.shape, where, len(picks)))
    ctx.bind(node.outputs[0], joined)


@lowers("Pad", to="Padding, Crop")
def _pad(ctx: Context, node: ir.Node) -> None:
    """Pad with a constant, the edge, or a reflection; negative pads cut."""
    x = node.inputs[0]
    shape = ctx.shape(x)
    pads = ctx.integers(node.inputs[1], "list of pads")
    rank = len(shape)
    axes = tuple(range(rank))
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = tuple(axis % rank for axis in ctx.integers(node.inputs[3], "list of axes"))
    begin, end = [0] * rank, [0] * rank
    for index, axis in enumerate(axes):
        begin[axis], end[axis] = pads[index], pads[len(axes) + index]
    blob = ctx.blob(x)
    dropped = rank - len(blob.shape)
    if any((*begin[:dropped], *end[:dropped])):
        raise Refusal("it pads the batch axis")
    bounds = [
        (max(-begin[axis], 0), shape[axis] - max(-end[axis], 0)) for axis in range(dropped, rank)
    ]
    grows = any(size > 0 for size in (*begin, *end))
    blob = cut(ctx, blob, bounds, "cut" if grows else "")
    sizes = [(max(b, 0), max(e, 0)) for b, e in zip(begin[dropped:], end[dropped:], strict=True)]
    ctx.bind(node.outputs[0], _padding(ctx, node, blob, sizes))


def _padding(ctx: Context, node: ir.Node, blob: Blob, sizes: list[tuple[int, int]]) -> Blob:
    """A Padding layer that adds `sizes` (front, behind) to each ncnn axis."""
    if not any(front or behind for front, behind in sizes):
        return blob
    modes = {"constant": 0, "edge": 1, "reflect": 2}
    mode = node.attributes.get_string("mode", "constant") or "constant"
    if mode not in modes:
        raise Refusal(f"its mode is '{mode}'")
    value = 0.0
    if mode == "constant" and len(node.inputs) > 2 and node.inputs[2] is not None:
        value = float(ctx.weights(node.inputs[2], "value").reshape(-1)[0])
    keys = {-1: (2, 3), -2: (0, 1), -3: (7, 8)}
    params: dict[int, Param] = {0: 0, 1: 0, 2: 0, 3: 0, 4: modes[mode], 5: value}
    for index, (front, behind) in enumerate(sizes):
        axis = index - len(sizes)
        if axis not in keys:
            if front or behind:
                raise Refusal("it pads the fourth axis")
            continue
        first, second = keys[axis]
        if axis != -3 or front or behind:
            params[first], params[second] = front, behind
    grown = tuple(n + a + b for n, (a, b) in zip(blob.shape, sizes, strict=True))
    return ctx.layer("Padding", [blob], params, shape=grown)


@lowers("Expand", "Tile", to="Tile")
def _tile(ctx: Context, node: ir.Node) -> None:
    """Repeat along axes; an expanded axis of 1 is a repeated one."""
    x = node.inputs[0]
    shape, out = ctx.shape(x), ctx.shape(node.outputs[0])
    full = (1,) * (len(out) - len(shape)) + shape
    wanted = full if out[0] != 1 or len(out) == 1 else full[1:]
    blob = ctx.reshape(ctx.blob(x), wanted or (1,), "aligned")
    repeats = tuple(n // m for n, m in zip(view(out), blob.shape, strict=True))
    if any(repeat != 1 for repeat in repeats):
        blob = ctx.layer("Tile", [blob], {2: repeats}, shape=view(out))
    ctx.bind(node.outputs[0], blob)


@lowers("DepthToSpace", to="PixelShuffle")
def _depth_to_space(ctx: Context, node: ir.Node) -> None:
    ctx.batch(node.inputs[0], 4)
    mode = 1 if node.attributes.get_string("mode", "DCR") == "DCR" else 0
    params: dict[int, Param] = {0: node.attributes.get_int("blocksize", 1), 1: mode}
    out = ctx.shape(node.outputs[0])
    blob = ctx.blob(node.inputs[0])
    ctx.bind(node.outputs[0], ctx.layer("PixelShuffle", [blob], params, shape=out[1:]))


@lowers("SpaceToDepth", to="Reorg")
def _space_to_depth(ctx: Context, node: ir.Node) -> None:
    ctx.batch(node.inputs[0], 4)
    mode = 1 if node.attributes.get_string("mode", "DCR") == "DCR" else 0
    params: dict[int, Param] = {0: node.attributes.get_int("blocksize", 1), 1: mode}
    out = ctx.shape(node.outputs[0])
    blob = ctx.blob(node.inputs[0])
    ctx.bind(node.outputs[0], ctx.layer("Reorg", [blob], params, shape=out[1:]))

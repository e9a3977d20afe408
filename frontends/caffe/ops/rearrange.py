"""Layers that move numbers without computing: join, cut, permute."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from qconvert.frontends.caffe.convert import Context, converts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir


@converts("Concat")
def _concat(ctx: Context) -> Sequence[ir.Value]:
    """Concat → Concat; `concat_dim` is the old word for `axis`."""
    param = ctx.params.concat_param
    axis = ctx.axis(param.concat_dim if param.HasField("concat_dim") else param.axis)
    shapes = [ctx.shape(index) for index in range(len(ctx.inputs))]
    if len({(*shape[:axis], *shape[axis + 1 :], len(shape)) for shape in shapes}) != 1:
        raise ctx.error(
            f"Concat of the shapes {', '.join(str(list(shape)) for shape in shapes)}",
            f"they must agree but for axis {axis}",
        )
    first = shapes[0]
    shape = (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])
    return [ctx.op("Concat", ctx.inputs, {"axis": axis}, shape=shape)]


@converts("Slice")
def _slice(ctx: Context) -> Sequence[ir.Value]:
    """Slice, at `slice_point` or into equal parts → Split."""
    ctx.expect_inputs(1)
    param, shape, tops = ctx.params.slice_param, ctx.shape(), len(ctx.layer.tops)
    axis = ctx.axis(param.slice_dim if param.HasField("slice_dim") else param.axis)
    size = shape[axis]
    if param.slice_point:
        points = [0, *param.slice_point, size]
        sizes = [end - begin for begin, end in itertools.pairwise(points)]
    else:
        sizes = [size // tops] * tops
    if len(sizes) != tops or min(sizes) < 1 or sum(sizes) != size:
        raise ctx.error(
            f"Slice of axis {axis} with {size} entries into {tops} tops",
            f"at {list(param.slice_point)}" if param.slice_point else "it does not divide",
        )
    if tops == 1:
        return [ctx.op("Identity", [ctx.x], shape=shape)]
    shapes = [(*shape[:axis], part, *shape[axis + 1 :]) for part in sizes]
    split = ctx.integers("split", sizes)
    return ctx.ops("Split", [ctx.x, split], {"axis": axis}, shapes=shapes)


@converts("Crop")
def _crop(ctx: Context) -> Sequence[ir.Value]:
    """Crop to the size of the second bottom → Slice (crop_layer.cpp)."""
    ctx.expect_inputs(2)
    param, shape, wanted = ctx.params.crop_param, ctx.shape(), ctx.shape(1)
    axis = ctx.axis(param.axis)
    if len(wanted) != len(shape):
        raise ctx.error(f"Crop of {list(shape)} to {list(wanted)}", "their ranks differ")
    axes, offset = range(axis, len(shape)), list(param.offset)
    if len(offset) <= 1:
        offset = (offset or [0]) * len(axes)
    if len(offset) != len(axes):
        raise ctx.error(f"Crop has {len(offset)} offsets", f"it crops {len(axes)} axes")
    ends = [start + wanted[index] for index, start in zip(axes, offset, strict=True)]
    if any(end > shape[index] for index, end in zip(axes, ends, strict=True)):
        raise ctx.error(
            f"Crop of {list(shape)} to {list(wanted)} at {offset}", "it reaches outside"
        )
    cut = [ctx.integers(*row) for row in (("starts", offset), ("ends", ends), ("axes", list(axes)))]
    return [ctx.op("Slice", [ctx.x, *cut], shape=(*shape[:axis], *wanted[axis:]))]


@converts("Tile")
def _tile(ctx: Context) -> Sequence[ir.Value]:
    """Tile, `tiles` copies along an axis → Tile."""
    ctx.expect_inputs(1)
    param, shape = ctx.params.tile_param, ctx.shape()
    axis = ctx.axis(param.axis)
    if param.tiles < 1:
        raise ctx.error(f"Tile makes {param.tiles} copies", "it makes at least 1")
    repeats = [param.tiles if index == axis else 1 for index in range(len(shape))]
    top = [dim * repeat for dim, repeat in zip(shape, repeats, strict=True)]
    return [ctx.op("Tile", [ctx.x, ctx.integers("repeats", repeats)], shape=top)]


@converts("Permute")
def _permute(ctx: Context) -> Sequence[ir.Value]:
    """Permute → Transpose; axes that `order` leaves out follow in order (SSD)."""
    ctx.expect_inputs(1)
    shape, order = ctx.shape(), list(ctx.params.permute_param.order)
    order += [axis for axis in range(len(shape)) if axis not in order]
    if sorted(order) != list(range(len(shape))):
        raise ctx.error(f"Permute has the order {order}", f"its bottom is {list(shape)}")
    return [ctx.op("Transpose", [ctx.x], {"perm": order}, shape=[shape[axis] for axis in order])]


def _planes(ctx: Context) -> tuple[int, int, int, int]:
    """The bottom's shape [N, C, H, W]."""
    ctx.expect_inputs(1)
    shape = ctx.shape()
    if len(shape) != 4:
        raise ctx.error(f"{ctx.layer.type} works on 4 axes, its bottom is {list(shape)}")
    return shape[0], shape[1], shape[2], shape[3]


def _shuffled(
    ctx: Context, split: Sequence[int], perm: Sequence[int], top: Sequence[int]
) -> Sequence[ir.Value]:
    """Reshape, Transpose, Reshape."""
    x = ctx.reshape(ctx.x, split, "split")
    moved = [split[axis] for axis in perm]
    x = ctx.op("Transpose", [x], {"perm": list(perm)}, shape=moved, part="transpose")
    return [ctx.reshape(x, top)]


@converts("ShuffleChannel", "ChannelShuffle")
def _shuffle_channel(ctx: Context) -> Sequence[ir.Value]:
    """ShuffleChannel → Reshape [N, g, C/g, H, W], Transpose, Reshape (ShuffleNet's layer)."""
    batch, channels, height, width = _planes(ctx)
    old = ctx.layer.type == "ChannelShuffle"
    group = (ctx.params.channel_shuffle_param if old else ctx.params.shuffle_channel_param).group
    if group < 1 or channels % group:
        raise ctx.error(f"{ctx.layer.type} has {group} groups", f"for {channels} channels")
    split = (batch, group, channels // group, height, width)
    return _shuffled(ctx, split, (0, 2, 1, 3, 4), ctx.shape())


@converts("PixelShuffle")
def _pixel_shuffle(ctx: Context) -> Sequence[ir.Value]:
    """PixelShuffle → DepthToSpace, column-row-depth."""
    batch, channels, height, width = _planes(ctx)
    factor = ctx.params.pixel_shuffle_param.upscale_factor
    if factor < 1 or channels % (factor * factor):
        raise ctx.error(f"PixelShuffle by {factor}", f"for {channels} channels")
    shape = (batch, channels // factor**2, height * factor, width * factor)
    attributes = {"blocksize": factor, "mode": "CRD"}
    return [ctx.op("DepthToSpace", [ctx.x], attributes, shape=shape)]


@converts("Reorg")
def _reorg(ctx: Context) -> Sequence[ir.Value]:
    """Reorg, Darknet's odd space-to-depth → Reshape and Transpose.

    The layer of the YOLOv2 ports calls Darknet's reorg_cpu with the *input's* sizes: it reads the
    input as [C / s², H, s, W, s] and writes [s, s, C / s², H, W], whose numbers are then taken as
    [C * s², H / s, W / s]. `reverse` is a plain depth-to-space, and no inverse of that
    (pjreddie/darknet src/blas.c, reorg_cpu; src/reorg_layer.c).
    """
    batch, channels, height, width = _planes(ctx)
    param = ctx.params.reorg_param
    stride, square = param.stride, param.stride**2
    fits = stride >= 1 and (
        channels % square == 0 and (param.reverse or (height % stride == 0 and width % stride == 0))
    )
    if not fits:
        raise ctx.error(
            f"Reorg has stride {stride}",
            f"it must divide height and width, and its square the channels: {list(ctx.shape())}",
        )
    depth = channels // square
    if param.reverse:
        split = (batch, stride, stride, depth, height, width)
        top = (batch, depth, height * stride, width * stride)
        return _shuffled(ctx, split, (0, 3, 4, 1, 5, 2), top)
    split = (batch, depth, height, stride, width, stride)
    top = (batch, channels * square, height // stride, width // stride)
    return _shuffled(ctx, split, (0, 3, 5, 1, 2, 4), top)

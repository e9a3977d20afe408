"""Layers that only look at the same numbers another way: reshape, transpose, squeeze, shuffle."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from qconvert.frontends.ncnn.expression import evaluate
from qconvert.frontends.ncnn.registry import converts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Builder

__all__: list[str] = []

_DROPPED = -233


def _view(b: Builder, x: ir.Value, dims: Sequence[int]) -> ir.Value:
    """Reshape, as a node of the layer also where nothing changes."""
    return b.emit("Reshape", [x, b.ints([1, *dims], "shape")], dims)


def _reshape_why_not(layer: Layer) -> str | None:
    """Reshapes that touch the batch axis."""
    touches = layer.int(12, 233) != 233 or layer.int(13, 233) != 233
    return "it reshapes the batch axis" if touches else None


@converts("Reshape", why_not=_reshape_why_not)
def _reshape(b: Builder, layer: Layer) -> ir.Value:
    """Any dims to any dims: 0 copies a size, -1 is what is left, -233 drops the axis.

    Source: src/layer/reshape.cpp.
    """
    x = b.input()
    dims = b.dims(x)
    total = math.prod(dims)
    wanted = _wanted(b, dims)
    if wanted.count(-1) == 1:
        rest = math.prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = total // rest if rest > 0 else 0
    if min(wanted) < 1 or math.prod(wanted) != total:
        raise b.bad(
            f"Reshape '{layer.name}' cannot make {wanted} of {list(dims)}",
            f"{math.prod(wanted)} elements against {total}",
        )
    return _view(b, x, wanted)


def _wanted(b: Builder, dims: Sequence[int]) -> list[int]:
    """The target sizes, outermost first, zeros resolved, -1 left."""
    layer = b.layer
    width, height, depth, channels = (layer.int(key, _DROPPED) for key in (0, 1, 11, 2))
    if text := layer.text(6):
        inner_first = _evaluate(b, text)
    elif width == _DROPPED:
        inner_first = list(reversed(dims))
    elif height == _DROPPED:
        inner_first = [width]
    elif channels == _DROPPED:
        inner_first = [width, height]
    elif depth == _DROPPED:
        inner_first = [width, height, channels]
    else:
        inner_first = [width, height, depth, channels]
    if not 1 <= len(inner_first) <= 4:
        raise b.bad(f"Reshape '{layer.name}' gives {len(inner_first)} dims")
    sizes = list(reversed(inner_first))
    # 0 copies the size of the same name; missing ones are 1. c stays c in 3 and 4 dims.
    named = _names(dims)
    return [
        named[name] if size == 0 else size
        for name, size in zip(_order(len(sizes)), sizes, strict=True)
    ]


def _order(rank: int) -> str:
    """Names of the axes of a blob, outermost first."""
    return ("w", "hw", "chw", "cdhw")[rank - 1]


def _names(dims: Sequence[int]) -> dict[str, int]:
    """Axis name → size, 1 for the axes a blob lacks."""
    return dict.fromkeys("cdhw", 1) | dict(zip(_order(len(dims)), dims, strict=True))


def _evaluate(b: Builder, text: str) -> list[int]:
    """A shape expression over the inputs of the layer."""
    try:
        return evaluate(text, [b.dims(value) for value in b.inputs()])
    except ValueError as error:
        raise b.bad(f"the expression of '{b.layer.name}' is not valid", str(error)) from error


@converts("Flatten")
def _flatten(b: Builder, layer: Layer) -> ir.Value:  # noqa: ARG001 - one signature for all
    """Any dims → [c h w]."""
    x = b.input()
    return b.emit("Flatten", [x], (math.prod(b.dims(x)),), {"axis": 1})


@converts("Permute")
def _permute(b: Builder, layer: Layer) -> ir.Value:
    """Transpose: parameter 0 counts the permutations of the axes in dictionary order.

    Source: src/layer/permute.cpp (which lists the axes innermost first).
    """
    x = b.input()
    dims = b.dims(x)
    orders = list(itertools.permutations(range(len(dims))))
    kind = layer.int(0, 0) if len(dims) > 1 else 0
    if not 0 <= kind < len(orders):
        raise b.bad(
            f"Permute '{layer.name}' has order {kind}",
            f"a blob of {len(dims)} dims has {len(orders)}",
        )
    order = orders[kind]
    perm = [0, *(axis + 1 for axis in order)]
    return b.emit("Transpose", [x], [dims[axis] for axis in order], {"perm": perm})


@converts("Squeeze")
def _squeeze(b: Builder, layer: Layer) -> ir.Value:
    """Drop axes of size 1; a blob keeps at least one.

    Axes are listed by parameter 3, or switched by name (0 w, 1 h, 11 d, 2 c). Axes of another
    size stay (src/layer/squeeze.cpp).
    """
    x = b.input()
    dims = b.dims(x)
    if layer.ints(3):
        chosen = {b.axis(axis, len(dims)) for axis in layer.ints(3)}
    else:
        keys = {"w": 0, "h": 1, "d": 11, "c": 2}
        names = _order(len(dims))
        chosen = {axis for axis, name in enumerate(names) if layer.int(keys[name], 0)}
    kept = [size for axis, size in enumerate(dims) if axis not in chosen or size != 1]
    return _view(b, x, kept or [1])


@converts("ExpandDims")
def _expand_dims(b: Builder, layer: Layer) -> ir.Value:
    """Insert axes of size 1, counted in the result (src/layer/expanddims.cpp)."""
    x = b.input()
    dims = list(b.dims(x))
    rank = len(dims) + len(layer.ints(3))
    if rank > 4:
        raise b.bad(f"ExpandDims '{layer.name}' makes {rank} dims", "a blob has at most 4")
    chosen = sorted(b.axis(axis, rank) for axis in layer.ints(3))
    if len(set(chosen)) != len(chosen):
        raise b.bad(f"ExpandDims '{layer.name}' names an axis twice", str(layer.ints(3)))
    for axis in chosen:
        dims.insert(axis, 1)
    return _view(b, x, dims)


@converts("ShuffleChannel")
def _shuffle_channel(b: Builder, layer: Layer) -> ir.Value:
    """[g, c/g, ...] → [c/g, g, ...] on the channels of an image (src/layer/shufflechannel.cpp)."""
    x = b.input()
    dims = b.dims(x)
    groups = b.positive(0, 1)
    if len(dims) < 3 or dims[0] % groups:
        raise b.bad(f"ShuffleChannel '{layer.name}' cannot make {groups} groups of {list(dims)}")
    if layer.int(1, 0):
        groups = dims[0] // groups
    split = (groups, dims[0] // groups, *dims[1:])
    swapped = (split[1], split[0], *dims[1:])
    perm = [0, 2, 1, *range(3, len(dims) + 2)]
    x = b.reshape(x, split, "split")
    x = b.emit("Transpose", [x], swapped, {"perm": perm}, part="transpose")
    return _view(b, x, dims)


@converts("PixelShuffle")
def _pixel_shuffle(b: Builder, layer: Layer) -> ir.Value:
    """DepthToSpace: mode 0 takes the block index as the inner part of the channel (CRD)."""
    x = b.as_image(b.input())
    factor = b.positive(0, 1)
    channels, height, width = b.dims(x)
    if channels % factor**2:
        raise b.bad(f"PixelShuffle '{layer.name}' cannot spread {channels} channels by {factor}")
    attributes = {"blocksize": factor, "mode": "DCR" if layer.int(1, 0) else "CRD"}
    out = (channels // factor**2, height * factor, width * factor)
    return b.emit("DepthToSpace", [x], out, attributes)


@converts("Reorg")
def _reorg(b: Builder, layer: Layer) -> ir.Value:
    """Space to depth: mode 0 makes the block index the inner part of the channel.

    Rows and columns beyond a multiple of the stride are dropped (src/layer/reorg.cpp).
    """
    x = b.as_image(b.input())
    stride = b.positive(0, 1)
    channels, height, width = b.dims(x)
    rows, columns = height // stride, width // stride
    out = (channels * stride**2, rows, columns)
    b.check(out)
    if (height, width) != (rows * stride, columns * stride):
        starts, axes = b.ints([0, 0], "crop_starts"), b.ints([2, 3], "crop_axes")
        ends = b.ints([rows * stride, columns * stride], "crop_ends")
        cut = (channels, rows * stride, columns * stride)
        x = b.emit("Slice", [x, starts, ends, axes], cut, part="crop")
    if layer.int(1, 0):
        return b.emit("SpaceToDepth", [x], out, {"blocksize": stride})
    x = b.reshape(x, (channels, rows, stride, columns, stride), "blocks")
    x = b.emit(
        "Transpose",
        [x],
        (channels, stride, stride, rows, columns),
        {"perm": [0, 1, 3, 5, 2, 4]},
        part="transpose",
    )
    return _view(b, x, out)

"""Pools. Every window is written with explicit pads (mode 1), which is exact for every rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qconvert.backends.ncnn.geometry import Window, window_of
from qconvert.backends.ncnn.registry import Refusal, lowers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context
    from qconvert.backends.ncnn.net import Blob, Shape
    from qconvert.formats.ncnn_param import Param


@lowers("GlobalAveragePool", "GlobalMaxPool", to="Pooling")
def _global_pool(ctx: Context, node: ir.Node) -> None:
    """Global pools, x [1, C, ...]; ncnn gives [C]."""
    shape = ctx.batch(node.inputs[0])
    kind = 1 if node.op_type == "GlobalAveragePool" else 0
    blob = ctx.blob(node.inputs[0])
    if len(shape) == 2:
        ctx.bind(node.outputs[0], blob)
        return
    blob = _as_image(ctx, blob, flatten=True)
    params: dict[int, Param] = {0: kind, 4: 1}
    ctx.bind(node.outputs[0], ctx.layer("Pooling", [blob], params, shape=shape[1:2]))


def _as_image(ctx: Context, blob: Blob, *, flatten: bool = False) -> Blob:
    """[C, L] as [C, 1, L]; with `flatten`, [C, D, H, W] as [C, D * H, W]."""
    if len(blob.shape) == 2:
        return ctx.reshape(blob, (blob.shape[0], 1, blob.shape[1]), "as_image")
    if len(blob.shape) == 4 and flatten:
        c, d, h, w = blob.shape
        return ctx.reshape(blob, (c, d * h, w), "as_image")
    return blob


def _window(ctx: Context, node: ir.Node) -> tuple[Window, Shape, Shape]:
    """The window over at least two axes, with the input and output sizes they see."""
    shape, out = ctx.batch(node.inputs[0]), ctx.batch(node.outputs[0])
    kernel = tuple(int(k) for k in node.attributes.get_ints("kernel_shape", ()) or ())
    window = window_of(node, kernel, shape[2:], out[2:])
    if any(d != 1 for d, k in zip(window.dilations, kernel, strict=True) if k > 1):
        raise Refusal("its window is dilated")
    if len(kernel) == 1:
        window = Window(
            (1, *window.kernel), (1, *window.strides), (1, 1), (0, *window.begin), (0, *window.end)
        )
        shape, out = (*shape[:2], 1, *shape[2:]), (*out[:2], 1, *out[2:])
    return window, shape, out


@lowers("MaxPool", to="Pooling, Pooling3D")
def _max_pool(ctx: Context, node: ir.Node) -> None:
    """MaxPool, x [1, C, ...]. Padding never wins, so a tail added by rounding up is harmless."""
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise Refusal("its second output (indices) is used")
    window, _, out = _window(ctx, node)
    _pool(ctx, node, window, out, {0: 0})


@lowers("AveragePool", to="Pooling, Pooling3D")
def _average_pool(ctx: Context, node: ir.Node) -> None:
    """AveragePool, x [1, C, ...].

    When the padding counts, ncnn divides by the whole kernel; ONNX leaves out what lies beyond the
    declared pads. A Padding layer in front makes the declared pads part of the image, and the
    pool then counts the image only.
    """
    window, shape, out = _window(ctx, node)
    counts = node.attributes.get_int("count_include_pad", 0) == 1
    declared = [int(p) for p in node.attributes.get_ints("pads", ()) or ()]
    rank = len(window.kernel)
    real = len(shape) - 2 if len(declared) == 2 * (len(shape) - 2) else len(declared) // 2
    ends = (*([0] * (rank - real)), *declared[real:]) if declared else (0,) * rank
    tail = tuple(have - wanted for have, wanted in zip(window.end, ends, strict=True))
    automatic = node.attributes.get_string("auto_pad", "NOTSET") not in {"NOTSET", None, ""}
    if not counts or not any((*window.begin, *window.end)):
        _pool(ctx, node, window, out, {0: 1})
    elif automatic or not any(tail):
        _pool(ctx, node, window, out, {0: 1, 6: 1})
    elif rank == 2:
        blob = _as_image(ctx, ctx.blob(node.inputs[0]))
        top, left, bottom, right = (*window.begin, *ends)
        sizes: dict[int, Param] = {0: top, 1: bottom, 2: left, 3: right}
        padded = (blob.shape[0], blob.shape[1] + top + bottom, blob.shape[2] + left + right)
        blob = ctx.layer("Padding", [blob], sizes, shape=padded, part="pad")
        rest = Window(window.kernel, window.strides, window.dilations, (0, 0), tail)
        _emit(ctx, node, blob, rest, out, {0: 1})
    else:
        raise Refusal("it counts padding and rounds up over three axes")


def _pool(
    ctx: Context, node: ir.Node, window: Window, out: Shape, params: dict[int, Param]
) -> None:
    """A Pooling layer on the node's input."""
    _emit(ctx, node, _as_image(ctx, ctx.blob(node.inputs[0])), window, out, params)


def _emit(
    ctx: Context,
    node: ir.Node,
    blob: Blob,
    window: Window,
    out: Shape,
    params: dict[int, Param],
) -> None:
    """Write the window's parameters; Pooling and Pooling3D differ in the third axis only."""
    keys: Sequence[tuple[int, int, int, int]] = ((11, 12, 13, 15), (1, 2, 3, 14))
    kind = "Pooling"
    if len(window.kernel) == 3:
        keys, kind = ((21, 22, 23, 16), *keys), "Pooling3D"
    every = dict(params)
    for axis, (kernel, stride, begin, end) in enumerate(keys):
        every[kernel], every[stride] = window.kernel[axis], window.strides[axis]
        every[begin], every[end] = window.begin[axis], window.end[axis]
    every[5] = 1
    ctx.bind(node.outputs[0], ctx.layer(kind, [blob], _compact(every), shape=out[1:]))


def _compact(params: dict[int, Param]) -> dict[int, Param]:
    """Leave out what equals ncnn's defaults."""
    follows = {11: 1, 12: 2, 13: 3, 14: 3, 15: 13, 21: 1, 22: 2, 23: 3, 16: 23}
    constants = {2: 1, 3: 0}
    return {
        key: value
        for key, value in params.items()
        if not (key in follows and value == params.get(follows[key]))
        and not (key in constants and value == constants[key])
    }

"""Resize → Interp, where ncnn samples the same positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.backends.ncnn.registry import Refusal, lowers

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context
    from qconvert.backends.ncnn.net import Shape
    from qconvert.formats.ncnn_param import Param


@lowers("Resize", "Upsample", to="Interp")
def _resize(ctx: Context, node: ir.Node) -> None:
    """Resize of the spatial axes, x [1, C, H, W]."""
    x, y = node.inputs[0], node.outputs[0]
    shape, out = ctx.batch(x, 4), ctx.batch(y, 4)
    if shape[1] != out[1]:
        raise Refusal("it resizes the channels")
    mode = node.attributes.get_string("mode", "nearest") or "nearest"
    where = "asymmetric" if node.op_type == "Upsample" else "half_pixel"
    where = node.attributes.get_string("coordinate_transformation_mode", where) or where
    if node.attributes.get_int("antialias", 0):
        raise Refusal("it smooths before it shrinks (antialias)")
    blob = ctx.blob(x)
    if shape == out and where != "tf_crop_and_resize":
        ctx.bind(y, blob)
        return
    scales = _scales(ctx, node, shape, out)
    params: dict[int, Param] = {0: 1, 3: out[2], 4: out[3]}
    if mode == "nearest":
        _same_nearest(node, where, (shape, out), scales)
    elif mode in {"linear", "cubic"}:
        params[0] = 2 if mode == "linear" else 3
        if _aligned(mode, where, shape, out, scales):
            params[6] = 1
        if mode == "cubic":
            _plain_cubic(node)
    else:
        raise Refusal(f"its mode is '{mode}'")
    ctx.bind(y, ctx.layer("Interp", [blob], params, shape=out[1:]))


def _scales(ctx: Context, node: ir.Node, shape: Shape, out: Shape) -> tuple[float, float]:
    """Vertical and horizontal scale: as given, else the quotient of the sizes."""
    index = 1 if node.op_type == "Upsample" else 2
    given = ctx.constant(node.inputs[index]) if len(node.inputs) > index else None
    if given is not None and given.size == 4:
        return float(given.reshape(-1)[2]), float(given.reshape(-1)[3])
    return out[2] / shape[2], out[3] / shape[3]


def _aligned(mode: str, where: str, shape: Shape, out: Shape, scales: tuple[float, float]) -> bool:
    """Whether corners are aligned; refuses what ncnn does not have.

    ncnn takes the scale from the sizes, and samples half-pixel centres or aligned corners.
    """
    exact = all(
        abs(size * scale - result) < 1e-3
        for size, scale, result in zip(shape[2:], scales, out[2:], strict=True)
    )
    if where in {"half_pixel", "align_corners"} or (
        where == "pytorch_half_pixel" and min(out[2:]) > 1
    ):
        if exact:
            return where == "align_corners"
        raise Refusal("its scale is not the quotient of its sizes")
    raise Refusal(f"it samples '{where}' positions in {mode} mode")


def _plain_cubic(node: ir.Node) -> None:
    """Refuse kernels other than ncnn's."""
    if node.attributes.get_float("cubic_coeff_a", -0.75) != -0.75:
        raise Refusal("its cubic kernel is not -0.75")
    if node.attributes.get_int("exclude_outside", 0):
        raise Refusal("its cubic kernel leaves out the outside")


def _same_nearest(
    node: ir.Node, where: str, shapes: tuple[Shape, Shape], scales: tuple[float, float]
) -> None:
    """Refuse when ncnn's nearest pixel, floor(x * in / out), is another one."""
    rounding = node.attributes.get_string("nearest_mode", "round_prefer_floor")
    if node.op_type == "Upsample":
        rounding = "floor"
    for size, result, scale in zip(shapes[0][2:], shapes[1][2:], scales, strict=True):
        positions = np.arange(result, dtype=np.float64)
        step = np.float32(size) / np.float32(result)
        ours = np.minimum((positions.astype(np.float32) * step).astype(np.int64), size - 1)
        if where in {"half_pixel", "pytorch_half_pixel"}:
            source = (positions + 0.5) / scale - 0.5
        elif where == "asymmetric":
            source = positions / scale
        elif where == "align_corners":
            source = positions * (size - 1) / max(result - 1, 1)
        else:
            raise Refusal(f"it samples '{where}' positions")
        if where == "pytorch_half_pixel" and result == 1:
            source = np.zeros(1)
        nearest = {
            "floor": np.floor(source),
            "ceil": np.ceil(source),
            "round_prefer_floor": np.ceil(source - 0.5),
            "round_prefer_ceil": np.floor(source + 0.5),
        }[rounding or "round_prefer_floor"]
        if not np.array_equal(np.clip(nearest, 0, size - 1).astype(np.int64), ours):
            raise Refusal(f"its nearest pixels ('{where}', '{rounding}') are not ncnn's")

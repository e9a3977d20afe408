"""Normalizations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.backends.ncnn.ops.elementwise import binary
from qconvert.backends.ncnn.registry import Refusal, lowers

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context
    from qconvert.backends.ncnn.net import Blob, Weight
    from qconvert.formats.ncnn_param import Param


@lowers("BatchNormalization", to="BatchNorm")
def _batch_norm(ctx: Context, node: ir.Node) -> None:
    """BatchNormalization, x [1, C, ...], frozen statistics."""
    if node.attributes.get_int("training_mode", 0):
        raise Refusal("it is in training mode")
    ctx.batch(node.inputs[0])
    blob = ctx.blob(node.inputs[0])
    names = ("slope", "bias", "mean", "var")
    weights: dict[str, Weight] = {
        name: ctx.weights(value, name).reshape(-1)
        for name, value in zip(names, node.inputs[1:5], strict=True)
    }
    eps = float(node.attributes.get_float("epsilon", 1e-5))
    params: dict[int, Param] = {0: weights["slope"].size, 1: eps}
    ctx.bind(
        node.outputs[0],
        ctx.layer("BatchNorm", [blob], params, shape=blob.shape, weights=weights),
    )


@lowers("InstanceNormalization", to="InstanceNorm")
def _instance_norm(ctx: Context, node: ir.Node) -> None:
    """InstanceNormalization, x [1, C, ...]."""
    shape = ctx.batch(node.inputs[0])
    gamma, beta = (ctx.weights(value, "scale").reshape(-1) for value in node.inputs[1:3])
    params: dict[int, Param] = {
        0: gamma.size,
        1: float(node.attributes.get_float("epsilon", 1e-5)),
        2: 1,
    }
    blob = _flat_image(ctx, node, shape)
    result = ctx.layer(
        "InstanceNorm", [blob], params, shape=blob.shape, weights={"gamma": gamma, "beta": beta}
    )
    ctx.bind(node.outputs[0], result)


def _flat_image(ctx: Context, node: ir.Node, shape: tuple[int, ...]) -> Blob:
    """The input as three ncnn axes [C, H, W]: norms know no other rank in every version."""
    blob = ctx.blob(node.inputs[0])
    if len(blob.shape) == 3:
        return blob
    channels = shape[1]
    return ctx.reshape(blob, (channels, 1, blob.size // channels), "image")


@lowers("GroupNormalization", to="GroupNorm")
def _group_norm(ctx: Context, node: ir.Node) -> None:
    """GroupNormalization, x [1, C, ...], scale and bias [C]."""
    shape = ctx.batch(node.inputs[0])
    gamma, beta = (ctx.weights(value, "scale").reshape(-1) for value in node.inputs[1:3])
    groups = node.attributes.get_int("num_groups", 1)
    if gamma.size != shape[1]:
        gamma, beta = (np.repeat(array, shape[1] // gamma.size) for array in (gamma, beta))
    params: dict[int, Param] = {
        0: groups,
        1: shape[1],
        2: float(node.attributes.get_float("epsilon", 1e-5)),
        3: 1,
    }
    blob = _flat_image(ctx, node, shape)
    result = ctx.layer(
        "GroupNorm", [blob], params, shape=blob.shape, weights={"gamma": gamma, "beta": beta}
    )
    ctx.bind(node.outputs[0], result)


@lowers("LayerNormalization", "RMSNormalization", to="LayerNorm, RMSNorm")
def _layer_norm(ctx: Context, node: ir.Node) -> None:
    """Normalization over the axes from `axis` on, as one axis."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise Refusal("its mean or deviation is used")
    x = node.inputs[0]
    shape = ctx.shape(x)
    axis = node.attributes.get_int("axis", -1) % len(shape)
    size = int(np.prod(shape[axis:]))
    blob = ctx.reshape(ctx.blob(x), (int(np.prod(shape[:axis])), size), "rows")
    rms = node.op_type == "RMSNormalization"
    eps = float(node.attributes.get_float("epsilon", 1e-5))
    gamma = ctx.weights(node.inputs[1], "scale").reshape(-1)
    gamma = np.broadcast_to(gamma, (size,)) if gamma.size == 1 else gamma
    if gamma.size != size:
        raise Refusal("its scale is broadcast")
    weights: dict[str, Weight] = {"gamma": np.ascontiguousarray(gamma)}
    if not rms:
        beta = node.inputs[2] if len(node.inputs) > 2 else None
        weights["beta"] = (
            np.zeros(size, np.float32)
            if beta is None
            else np.array(np.broadcast_to(ctx.weights(beta, "bias").reshape(-1), (size,)))
        )
    kind = "RMSNorm" if rms else "LayerNorm"
    result = ctx.layer(kind, [blob], {0: size, 1: eps, 2: 1}, shape=blob.shape, weights=weights)
    ctx.bind(node.outputs[0], result)


@lowers("LRN", to="LRN")
def _lrn(ctx: Context, node: ir.Node) -> None:
    """LRN across channels, x [1, C, H, W]; alpha is divided by the size in both."""
    ctx.batch(node.inputs[0], 4)
    size = node.attributes.get_int("size", 1)
    if size % 2 == 0:
        raise Refusal("its size is even")
    blob = ctx.blob(node.inputs[0])
    params: dict[int, Param] = {
        0: 0,
        1: size,
        2: float(node.attributes.get_float("alpha", 1e-4)),
        3: float(node.attributes.get_float("beta", 0.75)),
        4: float(node.attributes.get_float("bias", 1.0)),
    }
    ctx.bind(node.outputs[0], ctx.layer("LRN", [blob], params, shape=blob.shape))


@lowers("MeanVarianceNormalization", to="MVN")
def _mvn(ctx: Context, node: ir.Node) -> None:
    """(x - mean) / (deviation + 1e-9) over space, or space and channels."""
    shape = ctx.batch(node.inputs[0], 4)
    axes = tuple(a % len(shape) for a in node.attributes.get_ints("axes", (0, 2, 3)) or ())
    if set(axes) - {0} not in ({2, 3}, {1, 2, 3}):
        raise Refusal(f"it runs over axes {list(axes)}")
    blob = ctx.blob(node.inputs[0])
    params: dict[int, Param] = {0: 1, 1: int(1 in axes), 2: 1e-9}
    ctx.bind(node.outputs[0], ctx.layer("MVN", [blob], params, shape=blob.shape))


@lowers("LpNormalization", to="Reduction, BinaryOp")
def _lp_normalization(ctx: Context, node: ir.Node) -> None:
    """X / ||x|| along one axis."""
    x = node.inputs[0]
    blob, shape = ctx.blob(x), ctx.shape(x)
    axis = node.attributes.get_int("axis", -1) % len(shape)
    dropped = len(shape) - len(blob.shape)
    if axis < dropped:
        raise Refusal("it runs over the batch axis")
    order = node.attributes.get_int("p", 2)
    reduced = tuple(1 if i == axis - dropped else n for i, n in enumerate(blob.shape))
    params: dict[int, Param] = {0: 8 if order == 2 else 7, 1: 0, 3: (axis - dropped,), 4: 1, 5: 1}
    norm = ctx.layer("Reduction", [blob], params, shape=reduced, part="norm")
    # ONNX wants 0 / 0 to be 0 here.
    smallest = float(np.finfo(np.float32).tiny)
    floor: dict[int, Param] = {0: 4, 1: 1, 2: smallest}
    norm = ctx.layer("BinaryOp", [norm], floor, shape=reduced, part="floor")
    full = tuple(1 if i == axis else n for i, n in enumerate(shape))
    ctx.bind(node.outputs[0], binary(ctx, 3, (blob, shape), (norm, full), node.outputs[0]))

"""Activations and other functions of one tensor, element by element; Softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.backends.ncnn.ops.elementwise import binary
from qconvert.backends.ncnn.registry import Refusal, lowers

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context
    from qconvert.formats.ncnn_param import Param

_FLOAT_MAX: Final = float(np.finfo(np.float32).max)

_PLAIN: Final = {
    "Relu": "ReLU",
    "Sigmoid": "Sigmoid",
    "Tanh": "TanH",
    "Mish": "Mish",
    "Softplus": "Softplus",
    "Erf": "Erf",
}

_UNARY: Final = {
    "Abs": 0,
    "Neg": 1,
    "Floor": 2,
    "Ceil": 3,
    "Sqrt": 5,
    "Exp": 7,
    "Log": 8,
    "Sin": 9,
    "Cos": 10,
    "Tan": 11,
    "Asin": 12,
    "Acos": 13,
    "Atan": 14,
    "Reciprocal": 15,
    "Round": 18,
}


def _one(ctx: Context, node: ir.Node, kind: str, params: dict[int, Param] | None = None) -> None:
    """One layer that keeps the shape of its one input."""
    blob = ctx.blob(node.inputs[0])
    ctx.bind(node.outputs[0], ctx.layer(kind, [blob], params, shape=blob.shape))


@lowers(*_PLAIN, to="the layer of that name")
def _plain(ctx: Context, node: ir.Node) -> None:
    _one(ctx, node, _PLAIN[node.op_type])


@lowers(*_UNARY, to="UnaryOp")
def _unary(ctx: Context, node: ir.Node) -> None:
    _one(ctx, node, "UnaryOp", {0: _UNARY[node.op_type]})


@lowers("LeakyRelu", to="ReLU with a slope")
def _leaky_relu(ctx: Context, node: ir.Node) -> None:
    _one(ctx, node, "ReLU", {0: float(node.attributes.get_float("alpha", 0.01))})


@lowers("Clip", to="Clip")
def _clip(ctx: Context, node: ir.Node) -> None:
    """Clip with constant bounds; a missing bound is the largest float."""
    bounds = []
    for index, default in ((1, -_FLOAT_MAX), (2, _FLOAT_MAX)):
        value = node.inputs[index] if len(node.inputs) > index else None
        array = ctx.weights(value, "bound") if value is not None else np.float32(default)
        bounds.append(float(np.clip(np.asarray(array).reshape(-1)[0], -_FLOAT_MAX, _FLOAT_MAX)))
    low, high = bounds
    if low == 0.0 and high == _FLOAT_MAX:
        _one(ctx, node, "ReLU")
        return
    # ncnn raises to the minimum first, like ONNX: max < min gives max everywhere.
    _one(ctx, node, "Clip", {0: low, 1: high})


@lowers("Elu", to="ELU")
def _elu(ctx: Context, node: ir.Node) -> None:
    _one(ctx, node, "ELU", {0: float(node.attributes.get_float("alpha", 1.0))})


@lowers("Celu", to="CELU")
def _celu(ctx: Context, node: ir.Node) -> None:
    _one(ctx, node, "CELU", {0: float(node.attributes.get_float("alpha", 1.0))})


@lowers("Selu", to="SELU")
def _selu(ctx: Context, node: ir.Node) -> None:
    alpha = float(node.attributes.get_float("alpha", 1.67326319217681884765625))
    gamma = float(node.attributes.get_float("gamma", 1.05070102214813232421875))
    _one(ctx, node, "SELU", {0: alpha, 1: gamma})


@lowers("Gelu", to="GELU")
def _gelu(ctx: Context, node: ir.Node) -> None:
    fast = node.attributes.get_string("approximate", "none") == "tanh"
    _one(ctx, node, "GELU", {0: int(fast)})


@lowers("HardSigmoid", to="HardSigmoid")
def _hard_sigmoid(ctx: Context, node: ir.Node) -> None:
    alpha = float(node.attributes.get_float("alpha", 0.2))
    beta = float(node.attributes.get_float("beta", 0.5))
    _one(ctx, node, "HardSigmoid", {0: alpha, 1: beta})


@lowers("HardSwish", to="HardSwish")
def _hard_swish(ctx: Context, node: ir.Node) -> None:
    _one(ctx, node, "HardSwish", {0: 1.0 / 6.0, 1: 0.5})


@lowers("Swish", to="Swish")
def _swish(ctx: Context, node: ir.Node) -> None:
    """X * sigmoid(alpha * x); ncnn has alpha 1 only."""
    if node.attributes.get_float("alpha", 1.0) != 1.0:
        raise Refusal("its alpha is not 1")
    _one(ctx, node, "Swish")


@lowers("Sign", to="BinaryOp, Clip")
def _sign(ctx: Context, node: ir.Node) -> None:
    """Clip(x * the largest float, -1, 1): UnaryOp has no sign in releases before 20260526."""
    x = ctx.blob(node.inputs[0])
    largest = float(np.finfo(np.float32).max)
    scaled = ctx.layer("BinaryOp", [x], {0: 2, 1: 1, 2: largest}, shape=x.shape, part="scaled")
    ctx.bind(node.outputs[0], ctx.layer("Clip", [scaled], {0: -1.0, 1: 1.0}, shape=x.shape))


@lowers("Softsign", to="UnaryOp, BinaryOp")
def _softsign(ctx: Context, node: ir.Node) -> None:
    """X / (1 + |x|)."""
    x = ctx.blob(node.inputs[0])
    size = ctx.layer("UnaryOp", [x], {0: 0}, shape=x.shape, part="abs")
    below = ctx.layer("BinaryOp", [size], {0: 0, 1: 1, 2: 1.0}, shape=x.shape, part="add")
    ctx.bind(node.outputs[0], ctx.layer("BinaryOp", [x, below], {0: 3}, shape=x.shape))


@lowers("PRelu", to="PReLU")
def _prelu(ctx: Context, node: ir.Node) -> None:
    """PRelu with one slope, or one for each channel; any other slope as max + slope * min."""
    x = node.inputs[0]
    blob, shape = ctx.blob(x), ctx.shape(x)
    slope = ctx.constant(node.inputs[1])
    if slope is not None:
        aligned = (1,) * (len(shape) - slope.ndim) + slope.shape
        outermost = len(shape) - len(blob.shape)
        per_channel = [n for axis, n in enumerate(aligned) if n != 1 and axis != outermost]
        if not per_channel and slope.size in {1, blob.shape[0]}:
            data = slope.astype(np.float32).reshape(-1)
            result = ctx.layer(
                "PReLU", [blob], {0: data.size}, shape=blob.shape, weights={"slope": data}
            )
            ctx.bind(node.outputs[0], result)
            return
    positive = ctx.layer("ReLU", [blob], shape=blob.shape, part="positive")
    negative = ctx.layer(
        "BinaryOp", [blob], {0: 5, 1: 1, 2: 0.0}, shape=blob.shape, part="negative"
    )
    scaled = binary(ctx, 2, (negative, shape), node.inputs[1], node.outputs[0], part="scaled")
    ctx.bind(node.outputs[0], ctx.layer("BinaryOp", [positive, scaled], {0: 0}, shape=blob.shape))


@lowers("Softmax", "LogSoftmax", to="Softmax")
def _softmax(ctx: Context, node: ir.Node) -> None:
    """Softmax over one axis; parameter 1 tells ncnn that axis counts as it does here."""
    x = node.inputs[0]
    blob, shape = ctx.blob(x), ctx.shape(x)
    axis = node.attributes.get_int("axis", -1) % max(len(shape), 1)
    dropped = len(shape) - len(blob.shape) if shape else 0
    if axis < dropped:
        raise Refusal("it runs over the batch axis")
    params: dict[int, Param] = {0: axis - dropped, 1: 1}
    if node.op_type == "Softmax":
        ctx.bind(node.outputs[0], ctx.layer("Softmax", [blob], params, shape=blob.shape))
        return
    soft = ctx.layer("Softmax", [blob], params, shape=blob.shape, part="softmax")
    ctx.bind(node.outputs[0], ctx.layer("UnaryOp", [soft], {0: 8}, shape=blob.shape))


@lowers("ThresholdedRelu", to="Threshold, BinaryOp")
def _thresholded_relu(ctx: Context, node: ir.Node) -> None:
    """X where x > alpha, else 0."""
    blob = ctx.blob(node.inputs[0])
    alpha = float(node.attributes.get_float("alpha", 1.0))
    above = ctx.layer("Threshold", [blob], {0: alpha}, shape=blob.shape, part="above")
    ctx.bind(node.outputs[0], ctx.layer("BinaryOp", [blob, above], {0: 2}, shape=blob.shape))

"""Normalizations, Softmax, and the affine layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qconvert.frontends.ncnn.registry import converts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Attribute, Builder, Dims
    from qconvert.quant import F32

__all__: list[str] = []


def _per_channel(b: Builder, name: str, dims: Dims) -> F32:
    """Weight `name` shaped to broadcast along the outermost axis of `dims`."""
    array = b.weight(name)
    if array.size not in {1, dims[0]}:
        raise b.bad(
            f"the {name} of '{b.layer.name}' has {array.size} values",
            f"its input has {dims[0]} channels",
        )
    return array.reshape(-1, *(1 for _ in dims[1:]))


@converts("BatchNorm")
def _batch_norm(b: Builder, layer: Layer) -> ir.Value:
    """Along the outermost axis; a deviation of 0 counts as 0.0001 (src/layer/batchnorm.cpp)."""
    x = b.input()
    dims = b.dims(x)
    slope, mean, var, bias = (b.weight(name) for name in ("slope", "mean", "var", "bias"))
    if slope.size != dims[0]:
        raise b.bad(f"BatchNorm '{layer.name}' has {slope.size} channels, its input {dims[0]}")
    epsilon = layer.float(1, 0.0)
    if float(var.min()) + epsilon < 0:
        raise b.bad(f"BatchNorm '{layer.name}' has a negative variance")
    var = np.where(var + np.float32(epsilon) == 0, np.float32(1e-8 - epsilon), var)
    named = zip((slope, bias, mean, var), ("weight", "bias", "mean", "var"), strict=True)
    statistics = [b.constant(array, name) for array, name in named]
    return b.emit("BatchNormalization", [x, *statistics], dims, {"epsilon": epsilon})


def _scale_why_not(layer: Layer) -> str | None:
    both = layer.int(0, 0) == -233 and layer.int(1, 0)
    return "its scale is an input, and it has a bias" if both else None


@converts("Scale", why_not=_scale_why_not)
def _scale(b: Builder, layer: Layer) -> ir.Value:
    """X * scale + bias along the outermost axis; the scale may be a second input."""
    x = b.input()
    dims = b.dims(x)
    if layer.int(0, 0) == -233:
        other = b.input(1)
        size = math.prod(b.dims(other))
        if size != dims[0]:
            raise b.bad(f"Scale '{layer.name}' gets {size} scales, its input has {dims[0]}")
        factor = b.reshape(other, (size, *(1 for _ in dims[1:])), "factor")
        return b.emit("Mul", [x, factor], dims)
    y = b.emit("Mul", [x, b.constant(_per_channel(b, "scale", dims), "weight")], dims)
    if "bias" not in b.weights:
        return y
    return b.emit("Add", [y, b.constant(_per_channel(b, "bias", dims), "bias")], dims, part="bias")


@converts("Bias")
def _bias(b: Builder, layer: Layer) -> ir.Value:  # noqa: ARG001 - one signature for all
    """X + bias along the outermost axis."""
    x = b.input()
    dims = b.dims(x)
    return b.emit("Add", [x, b.constant(_per_channel(b, "bias", dims), "bias")], dims)


def _softmax_why_not(layer: Layer) -> str | None:
    """Files from before ncnn counted axes right."""
    if layer.int(0, 0) and not layer.int(1, 0):
        return "the file is too old to say which axis is meant; ncnn refuses it as well"
    return None


@converts("Softmax", why_not=_softmax_why_not)
def _softmax(b: Builder, layer: Layer) -> ir.Value:
    """Along an axis of the dims."""
    x = b.input()
    dims = b.dims(x)
    return b.emit("Softmax", [x], dims, {"axis": b.axis(layer.int(0, 0), len(dims)) + 1})


def _square_sum(b: Builder, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    """Sum of squares over axes of the dims, which stay with size 1."""
    out = [1 if axis in axes else n for axis, n in enumerate(b.dims(x))]
    reduced = b.ints([axis + 1 for axis in axes], "axes")
    return b.emit("ReduceSumSquare", [x, reduced], out, {"keepdims": 1}, part="square_sum")


def _normalize_why_not(layer: Layer) -> str | None:
    kind = layer.int(9, 0)
    return None if kind in {0, 1, 2} else f"eps mode {kind} is not known"


@converts("Normalize", why_not=_normalize_why_not)
def _normalize(b: Builder, layer: Layer) -> ir.Value:
    """X / norm * scale; the norm over channels, over the pixels of a channel, or over both.

    Epsilon is under the root (mode 0, Caffe), a bound of the root (1, Torch) or a bound of the
    sum (2, TensorFlow). Source: src/layer/normalize.cpp.
    """
    x = b.as_image(b.input())
    dims = b.dims(x)
    axes = [0] if layer.int(4, 1) else []
    axes += [1, 2] if layer.int(0, 0) else []
    if not axes:
        return b.reshape(b.emit("Identity", [x], dims), b.dims(b.input()))
    total = _square_sum(b, x, axes)
    shape, mode = b.dims(total), layer.int(9, 0)
    epsilon = b.scalar(layer.float(2, 1e-4), "epsilon")
    if mode == 0:
        total = b.emit("Add", [total, epsilon], shape, part="epsilon")
    elif mode == 2:
        total = b.emit("Max", [total, epsilon], shape, part="epsilon")
    norm = b.emit("Sqrt", [total], shape, part="sqrt")
    if mode == 1:
        norm = b.emit("Max", [norm, epsilon], shape, part="epsilon")
    y = b.emit("Div", [x, norm], dims, part="div")
    scale = b.weight("scale")[:1] if layer.int(1, 0) else b.weight("scale")
    if scale.size not in {1, dims[0]} or (scale.size != dims[0] and not layer.int(1, 0)):
        raise b.bad(f"Normalize '{layer.name}' has {scale.size} scales for {dims[0]} channels")
    y = b.emit("Mul", [y, b.constant(scale.reshape(-1, 1, 1), "scale")], dims)
    return b.reshape(y, b.dims(b.input()))


def _lrn_why_not(layer: Layer) -> str | None:
    kind, size = layer.int(0, 0), layer.int(1, 5)
    if kind not in {0, 1}:
        return f"region {kind} is not known"
    if size < 1:
        return f"local size {size} is not a size"
    if kind == 0 and size % 2 == 0:
        return f"releases of ncnn differ on a window of {size} channels: it has no middle"
    return None


@converts("LRN", why_not=_lrn_why_not)
def _lrn(b: Builder, layer: Layer) -> ir.Value:
    """X / (bias + alpha * mean of squares)^beta, across channels or within one.

    Source: src/layer/lrn.cpp. Across channels that is ONNX's LRN; within one, the border counts
    as zeros.
    """
    x = b.as_image(b.input())
    dims = b.dims(x)
    size, alpha, beta = layer.int(1, 5), layer.float(2, 1.0), layer.float(3, 0.75)
    if layer.int(0, 0) == 0:
        attributes = {"size": size, "alpha": alpha, "beta": beta, "bias": layer.float(4, 1.0)}
        return b.reshape(b.emit("LRN", [x], dims, attributes), b.dims(b.input()))
    before = size // 2
    square = b.emit("Mul", [x, x], dims, part="square")
    window: dict[str, Attribute] = {
        "kernel_shape": [size, size],
        "pads": [before, before, size - before - 1, size - before - 1],
        "count_include_pad": 1,
    }
    mean = b.emit("AveragePool", [square], dims, window, part="mean")
    scaled = b.emit("Mul", [mean, b.scalar(alpha, "alpha")], dims, part="alpha")
    shifted = b.emit("Add", [scaled, b.scalar(layer.float(4, 1.0), "bias")], dims, part="shift")
    factor = b.emit("Pow", [shifted, b.scalar(-beta, "beta")], dims, part="power")
    return b.reshape(b.emit("Mul", [x, factor], dims), b.dims(b.input()))


@converts("MVN")
def _mvn(b: Builder, layer: Layer) -> ir.Value:
    """(x - mean) / (deviation + epsilon) of a channel or of all; the result has 3 dims.

    Source: src/layer/mvn.cpp (epsilon stands outside the root).
    """
    x = b.input() if len(b.dims(b.input())) == 4 else b.as_image(b.input())
    dims = b.dims(x)
    axes = list(range(0 if layer.int(1, 0) else 1, len(dims)))
    out = [1 if axis in axes else n for axis, n in enumerate(dims)]
    reduced = b.ints([axis + 1 for axis in axes], "mean_axes")
    mean = b.emit("ReduceMean", [x, reduced], out, {"keepdims": 1}, part="mean")
    y = b.emit("Sub", [x, mean], dims)
    if not layer.int(0, 0):
        return y
    total = _square_sum(b, y, axes)
    count = b.scalar(math.prod(dims[axis] for axis in axes), "count")
    variance = b.emit("Div", [total, count], out, part="variance")
    deviation = b.emit("Sqrt", [variance], out, part="deviation")
    epsilon = b.scalar(layer.float(2, 1e-4), "epsilon")
    divisor = b.emit("Add", [deviation, epsilon], out, part="divisor")
    return b.emit("Div", [y, divisor], dims, part="div")


def _affine(b: Builder, size: int, names: Sequence[str]) -> list[F32]:
    """Gamma (and beta) of a layer, 1 (and 0) where it has none."""
    defaults = {"gamma": 1.0, "beta": 0.0}
    arrays = [
        b.weight(name) if name in b.weights else np.full(size, defaults[name], np.float32)
        for name in names
    ]
    if any(array.size != size for array in arrays):
        raise b.bad(
            f"{b.layer.kind} '{b.layer.name}' has {arrays[0].size} factors",
            f"its input wants {size}",
        )
    return arrays


@converts("InstanceNorm")
def _instance_norm(b: Builder, layer: Layer) -> ir.Value:
    """Each channel of an image by its own mean and variance; a blob of 1 or 2 dims is one channel.

    Source: src/layer/instancenorm.cpp.
    """
    x = b.input()
    dims = b.dims(x)
    channels = dims[0] if len(dims) > 2 else 1
    gamma, beta = (b.constant(a, n) for a, n in _named_affine(b, channels))
    image = x if len(dims) > 2 else b.reshape(x, (1, math.prod(dims)), "image")
    attributes = {"epsilon": layer.float(1, 1e-3)}
    y = b.emit("InstanceNormalization", [image, gamma, beta], b.dims(image), attributes)
    return b.reshape(y, dims)


def _named_affine(b: Builder, size: int) -> list[tuple[F32, str]]:
    """Gamma and beta with the names of their initializers."""
    return list(zip(_affine(b, size, ("gamma", "beta")), ("weight", "bias"), strict=True))


@converts("GroupNorm")
def _group_norm(b: Builder, layer: Layer) -> ir.Value:
    """Groups along the outermost axis by their own mean and variance; any dims.

    Source: src/layer/groupnorm.cpp.
    """
    x = b.input()
    dims = b.dims(x)
    groups = b.positive(0, 1)
    if dims[0] % groups:
        raise b.bad(f"GroupNorm '{layer.name}' cannot make {groups} groups of {dims[0]}")
    gamma, beta = (b.constant(a, n) for a, n in _named_affine(b, dims[0]))
    wide = b.reshape(x, (*dims, 1), "expand") if len(dims) == 1 else x
    attributes = {"num_groups": groups, "epsilon": layer.float(2, 1e-3)}
    y = b.emit("GroupNormalization", [wide, gamma, beta], b.dims(wide), attributes)
    return b.reshape(y, dims)


def _inner_axes(b: Builder, dims: Dims) -> int:
    """How many inner axes a layer normalizes together, from the number of its factors.

    A vector or a matrix: the innermost. Else as many as their sizes multiply to, and all but the
    outermost where nothing fits (src/layer/layernorm.cpp).
    """
    size = b.layer.int(0, 0)
    if len(dims) <= 2:
        return 1
    for count in range(1, len(dims)):
        if math.prod(dims[-count:]) == size:
            return count
    return len(dims) - 1


@converts("LayerNorm")
def _layer_norm(b: Builder, layer: Layer) -> ir.Value:
    """By mean and variance over the innermost axes."""
    x = b.input()
    dims = b.dims(x)
    inner = dims[-_inner_axes(b, dims) :]
    gamma, beta = (
        b.constant(array.reshape(inner), name) for array, name in _named_affine(b, math.prod(inner))
    )
    attributes = {"axis": -len(inner), "epsilon": layer.float(1, 1e-3)}
    return b.emit("LayerNormalization", [x, gamma, beta], dims, attributes)


@converts("RMSNorm")
def _rms_norm(b: Builder, layer: Layer) -> ir.Value:
    """X / sqrt(mean of squares + epsilon) * gamma over the innermost axes."""
    x = b.input()
    dims = b.dims(x)
    axes = range(len(dims) - _inner_axes(b, dims), len(dims))
    inner = dims[axes.start :]
    (gamma,) = _affine(b, math.prod(inner), ("gamma",))
    out = [1 if axis in axes else n for axis, n in enumerate(dims)]
    square = b.emit("Mul", [x, x], dims, part="square")
    reduced = b.ints([axis + 1 for axis in axes], "axes")
    mean = b.emit("ReduceMean", [square, reduced], out, {"keepdims": 1}, part="mean")
    epsilon = b.scalar(layer.float(1, 1e-3), "epsilon")
    shifted = b.emit("Add", [mean, epsilon], out, part="shift")
    root = b.emit("Sqrt", [shifted], out, part="root")
    y = b.emit("Div", [x, root], dims, part="div")
    return b.emit("Mul", [y, b.constant(gamma.reshape(inner), "weight")], dims)

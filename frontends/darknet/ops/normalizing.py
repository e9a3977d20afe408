"""[softmax], [normalization], [l2norm] and [logistic]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.frontends.darknet.ops import converts
from qconvert.frontends.darknet.ops.joining import channel_range
from qconvert.graph import shape_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.frontends.darknet.layer import Attributes, Layer

__all__: list[str] = []


@converts(
    "softmax",
    "soft",
    refuses={"tree": "a hierarchy of classes (softmax over a word tree)"},
    ignores="noloss",
)
def _softmax(layer: Layer) -> ir.Value:
    """[softmax]: over all numbers, or over each of `groups` runs; spatial=1: over the channels."""
    section = layer.section
    temperature = section.number("temperature", 1.0)
    groups = section.integer("groups", 1, low=1)
    if section.number("spatial", 0):
        x = layer.image()
        return layer.op("Softmax", [x], shape_of(x), {"axis": 1})
    x = layer.vector()
    shape = shape_of(x)
    if shape[1] % groups or temperature == 0:
        raise section.wrong(
            f"softmax over {groups} groups of {shape[1]} numbers at temperature {temperature:g}",
            "the groups must divide the numbers, and a temperature is not 0",
        )
    if temperature != 1:
        divisor = layer.constant("temperature", np.array(temperature, dtype=np.float32))
        x = layer.op("Div", [x, divisor], shape, part="cooled")
    if groups == 1:
        return layer.op("Softmax", [x], shape, {"axis": 1})
    grouped = layer.reshape(x, (1, groups, shape[1] // groups), "groups")
    y = layer.op("Softmax", [grouped], shape_of(grouped), {"axis": 2})
    return layer.reshape(y, shape, "row")


@converts("normalization", "lrn")
def _normalization(layer: Layer) -> ir.Value:
    """[normalization]: x * (kappa + alpha * s)^-beta, s the sum of squares over near channels.

    The window of channel k is [k - (size - 1) // 2, k + size // 2]. Darknet's running sum starts
    without channel size // 2 and never gets it, though it takes it away when the window has passed
    (forward_normalization_layer in src/normalization_layer.c): s is the window's sum less that
    channel's square, for every k.
    """
    section = layer.section
    x = layer.image()
    _, channels, height, width = shape = shape_of(x)
    size = section.integer("size", 5, low=1, high=2 * channels + 1)
    beta, alpha = section.number("beta", 0.75), section.number("alpha", 1e-4)
    scalars = {
        "alpha_size": alpha * size,
        "alpha": alpha,
        "kappa": section.number("kappa", 1.0),
        "beta": -beta,
    }
    constant = {
        name: layer.constant(name, np.array(value, dtype=np.float32))
        for name, value in scalars.items()
    }
    square = layer.op("Mul", [x, x], shape, part="square")
    table = layer.reshape(square, (1, 1, channels, height * width), "table")
    window: Attributes = {
        "kernel_shape": [size, 1],
        "pads": [(size - 1) // 2, 0, size // 2, 0],
        "count_include_pad": 1,
    }
    mean = layer.op("AveragePool", [table], shape_of(table), window, part="mean")
    near = layer.reshape(mean, shape, "near")
    total = layer.op("Mul", [near, constant["alpha_size"]], shape, part="near_alpha")
    if size // 2 < channels:
        lost = channel_range(layer, square, size // 2, size // 2 + 1, "lost")
        less = layer.op("Mul", [lost, constant["alpha"]], shape_of(lost), part="lost_alpha")
        total = layer.op("Sub", [total, less], shape, part="sum")
    base = layer.op("Add", [total, constant["kappa"]], shape, part="base")
    factor = layer.op("Pow", [base, constant["beta"]], shape, part="factor")
    return layer.op("Mul", [x, factor], shape)


@converts("l2norm")
def _l2norm(layer: Layer) -> ir.Value:
    """[l2norm]: each pixel's channels over their Euclidean length (l2normalize_cpu)."""
    x = layer.image()
    shape = shape_of(x)
    axes = layer.constant("axes", np.array([1], dtype=np.int64))
    length = layer.op("ReduceL2", [x, axes], (1, 1, *shape[2:]), {"keepdims": 1}, part="length")
    return layer.op("Div", [x, length], shape)


@converts("logistic")
def _logistic(layer: Layer) -> ir.Value:
    """[logistic]: the sigmoid; its loss matters for training only."""
    return layer.op("Sigmoid", [layer.x], shape_of(layer.x))

"""[convolutional], and [local], a convolution whose weights differ from pixel to pixel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.errors import Problem
from qconvert.frontends.darknet.layer import check_size, lazy
from qconvert.frontends.darknet.ops import converts
from qconvert.frontends.darknet.ops.activation import activate
from qconvert.frontends.darknet.ops.arrays import (
    MOST_CHANNELS,
    NORMALIZATION,
    fresh,
    initializers,
    normalize,
)
from qconvert.graph import shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qconvert.frontends.darknet.layer import Attributes, Layer
    from qconvert.quant import F32

__all__: list[str] = []

_LARGEST_KERNEL: Final = 1 << 14
_DEFORMED: Final = "it deforms the kernel"


@converts(
    "convolutional",
    "conv",
    refuses={
        "binary": "Darknet itself binarizes the weights on a GPU only",
        "antialiasing": "it blurs after the convolution",
        "coordconv": "it adds coordinates to the input",
        "cbn": "it normalizes over several batches",
        "numload": "the other filters would be random",
        "dontload": "its weights would be random",
        "sway": _DEFORMED,
        "rotate": _DEFORMED,
        "stretch": _DEFORMED,
        "stretch_sway": _DEFORMED,
    },
    ignores="angle assisted_excitation bin_output dot grad_centr reverse",
)
def _convolutional(layer: Layer) -> ir.Value:
    """[convolutional] → Conv, BatchNormalization, activation; x [1, C, H, W].

    `pad=1` means half the kernel, else `padding` counts. Dilation 1 is forced for size 1
    (parse_convolutional). `share_index` takes another layer's arrays, normalization included
    (make_convolutional_layer in AlexeyAB's src/convolutional_layer.c). `xnor=1` binarizes weights
    and input, and pads with zeros, as in training; AlexeyAB's bit-packed kernels have no zero.
    """
    section = layer.section
    x = layer.image()
    channels = shape_of(x)[1]
    filters = section.integer("filters", 1, low=1, high=MOST_CHANNELS)
    size = section.integer("size", 1, low=1, high=_LARGEST_KERNEL)
    groups = _groups(layer, channels, filters)
    out, window = _window(layer, shape_of(x)[2:], size)
    shape, attributes = (1, filters, *out), {**window, "group": groups}
    arrays = _arrays(layer, (filters, channels // groups, size, size))
    if section.integer("xnor", 0):
        x = _binary_input(layer, x)
    inputs = [x, arrays["weight"]]
    if "scale" in arrays:
        y = layer.op("Conv", inputs, shape, attributes)
        y.name = f"{layer.name}/conv"
        y = normalize(layer, y, arrays, part="bn")
    else:
        y = layer.op("Conv", [*inputs, arrays["bias"]], shape, attributes)
    return activate(layer, y, default="logistic")


def _window(layer: Layer, sides: Sequence[int], size: int) -> tuple[list[int], Attributes]:
    """[height, width] of the output, and the attributes that lead to it."""
    section = layer.section
    stride = section.integer("stride", 1, low=1)
    given = [section.integer(key, -1) for key in ("stride_y", "stride_x")]
    strides = [value if value > 0 else stride for value in given]
    dilation = section.integer("dilation", 1, low=1, high=_LARGEST_KERNEL)
    dilation = 1 if size == 1 else dilation
    pad = section.integer("padding", 0, low=0, high=_LARGEST_KERNEL)
    pad = size // 2 if section.integer("pad", 0) else pad
    reach = dilation * (size - 1) + 1
    pairs = list(zip(sides, strides, strict=True))
    declared = [(side + 2 * pad - size) // step + 1 for side, step in pairs]
    out = [(side + 2 * pad * dilation - reach) // step + 1 for side, step in pairs]
    _must_agree(layer, declared, out)
    attributes: Attributes = {
        "kernel_shape": [size, size],
        "strides": strides,
        "pads": [pad * dilation] * 4,
        "dilations": [dilation] * 2,
    }
    return out, attributes


def _must_agree(layer: Layer, declared: list[int], computed: list[int]) -> None:
    """Refuse a geometry in which Darknet itself writes past, or short of, its own output."""
    if declared != computed:
        layer.network.problems.append(
            Problem(
                f"[{layer.section.name}] with this size, padding and dilation",
                f"layer '{layer.name}' ({layer.section.place})",
                f"Darknet declares an output of {declared[0]} x {declared[1]} "
                f"and computes one of {computed[0]} x {computed[1]}",
            )
        )


def _groups(layer: Layer, channels: int, filters: int) -> int:
    """How many groups, checked against the channels; binary networks have one."""
    groups = layer.section.integer("groups", 1)
    groups = 1 if groups < 1 or layer.section.integer("xnor", 0) else groups
    if channels % groups or filters % groups:
        raise layer.section.wrong(
            f"{groups} groups do not divide {channels} channels into {filters} filters",
            f"layer '{layer.name}'",
            key="groups",
        )
    return groups


def _arrays(layer: Layer, shape: tuple[int, int, int, int]) -> Mapping[str, ir.Value]:
    """The layer's initializers by kind, from the weights or from the layer it shares with.

    File order: bias; scale, mean, variance when normalized; weight (load_convolutional_weights).
    """
    section, network = layer.section, layer.network
    if "share_index" in section.options:
        key = "share_index"
        other = layer.reference(section.integer(key, 0), key)
        section.integer("batch_normalize", 0)
        arrays = network.shared.get(other)
        if arrays is None or shape_of(arrays["weight"]) != shape:
            raise section.wrong(
                f"layer '{layer.name}' shares the weights of layer {other}",
                f"that is not a convolution with weights of shape {list(shape)}",
                key=key,
            )
        network.shared[layer.index] = arrays
        return arrays
    tensors = {"bias": layer.take(shape[:1], "bias")}
    if section.integer("batch_normalize", 0):
        if section.integer("dontloadscales", 0):
            tensors |= fresh(shape[0])
        else:
            tensors |= {kind: layer.take(shape[:1], kind) for kind in NORMALIZATION}
    tensors["weight"] = _kernel(layer, shape)
    if section.integer("xnor", 0):
        tensors["weight"] = _binarize(tensors["weight"])
    arrays = initializers(layer, tensors)
    network.shared[layer.index] = arrays
    return arrays


def _kernel(layer: Layer, shape: tuple[int, int, int, int]) -> ir.TensorProtocol:
    """The weights [O, I/groups, kH, kW]; `flipped=1` stores their transposition."""
    if not layer.section.integer("flipped", 0):
        return layer.take(shape, "weight")
    stored = layer.take((math.prod(shape[1:]), shape[0]), "weight")
    return lazy(lambda: stored.numpy().T.reshape(shape), shape)


def _binarize(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Each filter's mean magnitude, with the weights' signs (binarize_weights)."""

    def compute() -> F32:
        weights = tensor.numpy()
        mean = np.abs(weights).mean(axis=(1, 2, 3), keepdims=True)
        signed: F32 = np.where(weights > 0, mean, -mean).astype(np.float32)
        return signed

    return lazy(compute, tensor.shape.numpy())


def _binary_input(layer: Layer, x: ir.Value) -> ir.Value:
    """1 where x > 0, else -1 (binarize_cpu): 2 * [x > 0] - 1."""
    shape = shape_of(x)
    constants = [
        layer.constant(f"binary_{name}", np.array(value, dtype=np.float32))
        for name, value in (("zero", 0), ("one", 1), ("minus", -1))
    ]
    positive = layer.op("Greater", [x, constants[0]], shape, part="positive")
    positive.type = ir.TensorType(ir.DataType.BOOL)
    return layer.op("Where", [positive, *constants[1:]], shape, part="binary")


@converts("local", refuses={"dontload": "its weights would be random"})
def _local(layer: Layer) -> ir.Value:
    """[local]: a convolution with other weights at every pixel (src/local_layer.c).

    The windows of all pixels, [pixels, C * size², 1], meet weights [pixels, filters, C * size²].
    """
    section = layer.section
    x = layer.image()
    _, channels, height, width = shape_of(x)
    filters = section.integer("filters", 1, low=1, high=MOST_CHANNELS)
    size = section.integer("size", 1, low=1, high=_LARGEST_KERNEL)
    stride = section.integer("stride", 1, low=1)
    pad = section.integer("pad", 0, low=0, high=_LARGEST_KERNEL)
    out = [(side + 2 * pad - size) // stride + 1 for side in (height, width)]
    _must_agree(layer, [(s - (1 if pad else size)) // stride + 1 for s in (height, width)], out)
    check_size((channels, size**4), f"layer '{layer.name}'", section.place)
    pixels, window = out[0] * out[1], channels * size * size
    bias = layer.initializer("bias", layer.take((1, filters, *out), "bias"))
    weight = layer.initializer("weight", layer.take((pixels, filters, window), "weight"))
    pick = np.eye(size * size, dtype=np.float32).reshape(size * size, 1, size, size)
    one_hot = layer.constant("windows", np.tile(pick, (channels, 1, 1, 1)))
    attributes: Attributes = {
        "kernel_shape": [size, size],
        "strides": [stride, stride],
        "pads": [pad] * 4,
        "group": channels,
    }
    windows = layer.op("Conv", [x, one_hot], (1, window, *out), attributes, part="windows")
    columns = layer.reshape(windows, (window, pixels), "columns")
    rows = layer.op("Transpose", [columns], (pixels, window), {"perm": [1, 0]}, part="rows")
    column = layer.reshape(rows, (pixels, window, 1), "column")
    product = layer.op("MatMul", [weight, column], (pixels, filters, 1))
    product.name = f"{layer.name}/matmul"
    flat = layer.reshape(product, (pixels, filters), "pixels")
    turned = layer.op("Transpose", [flat], (filters, pixels), {"perm": [1, 0]}, part="filters")
    image = layer.reshape(turned, (1, filters, *out), "map")
    return activate(
        layer, layer.op("Add", [image, bias], (1, filters, *out), part="sum"), default="logistic"
    )

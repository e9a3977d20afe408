"""[maxpool], [local_avgpool], [avgpool], [upsample] and [crop]: the size of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.errors import Problem
from qconvert.frontends.darknet.layer import check_size
from qconvert.frontends.darknet.ops import converts
from qconvert.graph import shape_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.frontends.darknet.layer import Layer

__all__: list[str] = []

_LARGEST_KERNEL: Final = 1 << 14


@converts(
    "maxpool",
    "max",
    refuses={"antialiasing": "it blurs after pooling"},
    ignores="maxpool_zero_nonmax",
)
def _maxpool(layer: Layer) -> ir.Value:
    """[maxpool] → MaxPool; with maxpool_depth=1, the maximum of every out_channels-th channel."""
    if layer.section.integer("maxpool_depth", 0):
        return _maxpool_depth(layer)
    return _pool(layer, "MaxPool")


@converts("local_avgpool", "local_avg")
def _local_avgpool(layer: Layer) -> ir.Value:
    """[local_avgpool] → AveragePool over the pixels that exist."""
    return _pool(layer, "AveragePool")


def _pool(layer: Layer, op_type: str) -> ir.Value:
    """Pooling with Darknet's padding.

    `padding` (size - 1 unless given) is the total. The first window begins at -(padding // 2), and
    there are (side + padding - size) // stride + 1 of them (make_maxpool_layer in
    src/maxpool_layer.c), so that the end is padded by what they reach over it.
    """
    section = layer.section
    x = layer.image()
    _, channels, *sides = shape_of(x)
    stride = section.integer("stride", 1, low=1)
    strides = [section.integer(key, stride, low=1) for key in ("stride_y", "stride_x")]
    size = section.integer("size", stride, low=1, high=_LARGEST_KERNEL)
    total = section.integer("padding", size - 1, low=0, high=2 * _LARGEST_KERNEL)
    begin = total // 2
    out, ends = [], []
    for side, step in zip(sides, strides, strict=True):
        if side + total < size:
            raise section.wrong(
                f"the window of layer '{layer.name}' is larger than the image",
                f"size {size} on {side} pixels with {total} pixels of padding",
            )
        out.append((side + total - size) // step + 1)
        ends.append(max(0, (out[-1] - 1) * step + size - side - begin))
    if max(begin, *ends) >= size:
        layer.network.problems.append(
            Problem(
                f"[{section.name}] with padding {total} around windows of {size}",
                f"layer '{layer.name}' ({section.place})",
                "some windows would lie outside of the image",
            )
        )
    attributes = {"kernel_shape": [size] * 2, "strides": strides, "pads": [begin] * 2 + ends}
    return layer.op(op_type, [x], (1, channels, *out), attributes)


def _maxpool_depth(layer: Layer) -> ir.Value:
    """Channel g of the result is the maximum of the channels g, g + out_channels, ..."""
    section = layer.section
    x = layer.image()
    _, channels, height, width = shape_of(x)
    out = section.integer("out_channels", 1, low=1)
    if channels % out:
        raise section.wrong(
            f"out_channels={out} does not divide {channels} channels",
            f"layer '{layer.name}'",
            key="out_channels",
        )
    grouped = layer.reshape(x, (1, channels // out, out, height, width), "grouped")
    axes = layer.constant("axes", np.array([1], dtype=np.int64))
    return layer.op("ReduceMax", [grouped, axes], (1, out, height, width), {"keepdims": 0})


@converts("avgpool", "avg")
def _avgpool(layer: Layer) -> ir.Value:
    """[avgpool] → GlobalAveragePool."""
    x = layer.image()
    return layer.op("GlobalAveragePool", [x], (1, shape_of(x)[1], 1, 1))


@converts("upsample")
def _upsample(layer: Layer) -> ir.Value:
    """[upsample] → Resize to the nearest, times `scale`.

    A negative stride goes back: it adds up stride x stride pixels (upsample_cpu in src/blas.c).
    """
    section = layer.section
    x = layer.image()
    _, channels, height, width = shape_of(x)
    stride = section.integer("stride", 2, low=-_LARGEST_KERNEL, high=_LARGEST_KERNEL)
    scale = section.number("scale", 1.0)
    if stride > 0:
        shape = (1, channels, height * stride, width * stride)
        sizes = layer.constant("scales", np.array([1, 1, stride, stride], dtype=np.float32))
        attributes = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
        y = layer.op("Resize", [x, None, sizes], shape, attributes)
    else:
        step = -stride
        if step == 0 or height % step or width % step:
            raise section.wrong(
                f"stride={stride} does not divide an image of {width} x {height}",
                f"layer '{layer.name}'",
                key="stride",
            )
        shape = (1, channels, height // step, width // step)
        window = {"kernel_shape": [step] * 2, "strides": [step] * 2}
        y = layer.op("AveragePool", [x], shape, window)
        scale *= step * step
    if scale == 1:
        return y
    factor = layer.constant("scale", np.array(scale, dtype=np.float32))
    return layer.op("Mul", [y, factor], shape, part="scaled")


@converts("crop", ignores="flip angle saturation exposure shift")
def _crop(layer: Layer) -> ir.Value:
    """[crop]: the middle of the image, as 2x - 1 unless noadjust=1 (src/crop_layer.c)."""
    section = layer.section
    x = layer.image()
    _, channels, height, width = shape_of(x)
    out = [section.integer(key, 1, low=1) for key in ("crop_height", "crop_width")]
    if out[0] > height or out[1] > width:
        raise section.wrong(
            f"layer '{layer.name}' cuts {out[1]} x {out[0]} out of {width} x {height}",
            "the image is smaller than what is cut out of it",
        )
    begins = [(height - out[0]) // 2, (width - out[1]) // 2]
    ends = [begins[0] + out[0], begins[1] + out[1]]
    shape = (1, channels, *out)
    check_size(shape, f"layer '{layer.name}'", section.place)
    limits = [
        layer.constant(name, np.array(values, dtype=np.int64))
        for name, values in (("begins", begins), ("ends", ends), ("axes", [2, 3]))
    ]
    y = layer.op("Slice", [x, *limits], shape)
    if section.integer("noadjust", 0):
        return y
    two = layer.constant("two", np.array(2, dtype=np.float32))
    one = layer.constant("one", np.array(1, dtype=np.float32))
    doubled = layer.op("Mul", [y, two], shape, part="doubled")
    return layer.op("Sub", [doubled, one], shape, part="centred")

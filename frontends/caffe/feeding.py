"""What feeds a network: declared inputs, and data layers that become inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qconvert.errors import ModelFormatError
from qconvert.frontends.caffe.layers import Input, Layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qconvert.frontends.caffe import caffe_pb2 as pb

__all__ = ["DATA", "data_inputs", "declared_inputs"]

DATA: Final = frozenset(
    {
        "AnnotatedData",
        "Data",
        "DenseImageData",
        "DummyData",
        "HDF5Data",
        "ImageData",
        "Input",
        "MemoryData",
        "VideoData",
        "WindowData",
    }
)
"""Layers that feed a network."""


def declared_inputs(net: pb.Net, file: str) -> list[Input]:
    """Inputs declared at the top of the file, by `input_shape` or by four `input_dim` each."""
    shapes = [tuple(shape.dim) for shape in net.input_shape]
    if not shapes and net.input_dim:
        dims = tuple(net.input_dim)
        if len(dims) != 4 * len(net.input):
            raise ModelFormatError(
                "the inputs have no clear shape",
                at=file,
                why=f"{len(net.input)} inputs and {len(dims)} input_dim; each has 4",
            )
        shapes = [dims[start : start + 4] for start in range(0, len(dims), 4)]
    if shapes and len(shapes) != len(net.input):
        raise ModelFormatError(
            "the inputs have no clear shape",
            at=file,
            why=f"{len(net.input)} inputs and {len(shapes)} input_shape",
        )
    known: Sequence[tuple[int, ...] | None] = shapes or [None] * len(net.input)
    return [
        Input(name, shape, file, "" if shape else "the file declares no input_shape")
        for name, shape in zip(net.input, known, strict=True)
    ]


def data_inputs(layer: Layer) -> list[Input]:
    """The inputs a data layer becomes: one per top, the first with a shape if it is known."""
    shapes, why = _data_shapes(layer)
    if len(shapes) == 1 and layer.type in ("Input", "DummyData"):
        shapes = shapes * len(layer.tops)
    padded = [*shapes, *[None] * len(layer.tops)]
    return [
        Input(top, shape, layer.place, why) for top, shape in zip(layer.tops, padded, strict=False)
    ]


def _data_shapes(layer: Layer) -> tuple[list[tuple[int, ...] | None], str]:
    """The shapes of a data layer's tops as far as the file says, and why not further."""
    params, crop = layer.params, layer.params.transform_param.crop_size
    means = len(params.transform_param.mean_value)
    why = f"{layer.type} takes the shape from its data"
    shapes: list[tuple[int, ...] | None] = [None]
    match layer.type:
        case "Input":
            shapes = [tuple(shape.dim) for shape in params.input_param.shape]
            why = "there is no input_param.shape"
        case "DummyData":
            shapes = _dummy_shapes(params.dummy_data_param)
        case "MemoryData":
            memory = params.memory_data_param
            shapes = [(1, memory.channels, crop or memory.height, crop or memory.width)]
        case "ImageData":
            image = params.image_data_param
            size = (crop or image.new_height, crop or image.new_width)
            if all(size):
                shapes = [(1, 3 if image.is_color else 1, *size)]
        case _ if crop and means > 1:
            shapes = [(1, means, crop, crop)]
        case _ if crop:
            why = f"the size is {crop}x{crop}, the channels are known from the data alone"
        case _:
            pass
    return shapes, why


def _dummy_shapes(dummy: pb.DummyData) -> list[tuple[int, ...] | None]:
    """`shape`, or the older num, channels, height, width."""
    if dummy.shape:
        return [tuple(shape.dim) for shape in dummy.shape]
    return list(zip(dummy.num, dummy.channels, dummy.height, dummy.width, strict=False))

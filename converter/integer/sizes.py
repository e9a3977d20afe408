"""Do the layers of a program fit their tensors, and can a machine hold what they make?

A program is read from files that anybody may have written. Its parameters are as large as their
files, but paddings, factors and declared shapes are numbers in a text: they are held against one
another before memory is asked for.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qconvert.integer.program import Layer, Program

__all__ = ["LARGEST", "trouble"]

Shape: TypeAlias = tuple[int, ...]

LARGEST: Final = 1 << 29
"""Elements of a map, its padding included: 64 channels of 3840 x 2160."""
_TAPS: Final = 1 << 23
"""Elements under the window of a pool: one channel of such a map."""


def trouble(program: Program, layer: Layer) -> str | None:
    """Why a layer cannot be computed; None when nothing speaks against it.

    Raises:
        IndexError, KeyError, TypeError, ValueError: If an attribute does not fit the tensors.
    """
    if layer.op == "float":
        return None  # onnxruntime knows its shapes
    return _lacks(program, layer) or _misfit(program, layer)


def _lacks(program: Program, layer: Layer) -> str | None:
    """What it needs and does not have."""
    if ("multiplier" in layer.parameters) != ("shift" in layer.parameters):
        return "a multiplier and a shift go together"
    if layer.clamp is None and layer.op not in _PLAIN:
        return "it has no clamp"
    empty = [name for name in layer.parameters.values() if program.tensors[name].values is None]
    return f"there are no codes of '{empty[0]}'" if empty else None


def _misfit(program: Program, layer: Layer) -> str | None:
    """Which of its sizes does not fit."""
    shapes = [program.tensors[name].shape for name in layer.inputs]
    (declared,) = (program.tensors[name].shape for name in layer.outputs)
    if min(map(min, [s or (1,) for s in (*shapes, declared)])) < 0:
        return "a tensor has no fixed size"
    made, held = declared, 0
    if layer.op in _WINDOWED:
        made, held = _windowed(program, layer, shapes[0])
    elif layer.op in _MAKES:
        made = _MAKES[layer.op](layer, shapes, declared)
    if made != declared:
        return f"it makes {list(made)}, and {list(declared)} is declared"
    largest = max(held, prod(declared))
    return f"it needs room for {largest} numbers at once" if largest > LARGEST else None


def _windowed(program: Program, layer: Layer, shape: Shape) -> tuple[Shape, int]:
    """Output of a convolution or a pool, and how many elements its padded input has."""
    attributes = layer.attributes
    _, channels, height, width = shape
    top, left, bottom, right = attributes["pads"]
    kernel, dilations = attributes["kernel"], attributes.get("dilations", (1, 1))
    padded = (height + top + bottom, width + left + right)
    places = tuple(
        (size - (taps - 1) * dilation - 1) // stride + 1
        for size, taps, dilation, stride in zip(
            padded, kernel, dilations, attributes["strides"], strict=True
        )
    )
    weight = program.parameter(layer, "weight")
    if weight is not None and list(weight.shape[2:]) != list(kernel):
        raise ValueError(f"a kernel of {list(kernel)}, and weights of {list(weight.shape)}")
    if weight is not None and weight.shape[1] * attributes["groups"] != channels:
        raise ValueError(f"{channels} channels, and weights of {list(weight.shape)}")
    if weight is None and prod(kernel) > _TAPS:
        raise ValueError(f"a window of {list(kernel)}")
    outputs = channels if weight is None else weight.shape[0]
    return (1, outputs, *places), channels * prod(padded)


def _broadcast(_: Layer, shapes: Sequence[Shape], __: Shape) -> Shape:
    """Of an `add` or `mul`."""
    return np.broadcast_shapes(*shapes)


def _same(_: Layer, shapes: Sequence[Shape], __: Shape) -> Shape:
    """Of what works element by element."""
    return shapes[0]


def _concat(layer: Layer, shapes: Sequence[Shape], _: Shape) -> Shape:
    axis = layer.attributes["axis"]
    joined = sum(shape[axis] for shape in shapes)
    return (*shapes[0][:axis], joined, *shapes[0][axis + 1 :])


def _resize(layer: Layer, shapes: Sequence[Shape], _: Shape) -> Shape:
    attributes, (batch, channels, height, width) = layer.attributes, shapes[0]
    if "scales" in attributes:
        rows, columns = attributes["scales"]
        return (batch, channels, height * rows, width * columns)
    return (batch, channels, len(attributes["rows"]), len(attributes["columns"]))


def _pad(layer: Layer, shapes: Sequence[Shape], _: Shape) -> Shape:
    pads = layer.attributes["pads"]
    return tuple(size + sum(pair) for size, pair in zip(shapes[0], pads, strict=True))


def _reshape(_: Layer, shapes: Sequence[Shape], declared: Shape) -> Shape:
    return declared if prod(shapes[0]) == prod(declared) else shapes[0]


def _transpose(layer: Layer, shapes: Sequence[Shape], _: Shape) -> Shape:
    return tuple(shapes[0][axis] for axis in layer.attributes["order"])


def _slice(layer: Layer, shapes: Sequence[Shape], declared: Shape) -> Shape:
    axis = layer.attributes["axis"]
    return (*shapes[0][:axis], declared[axis], *shapes[0][axis + 1 :])


def _gather(layer: Layer, shapes: Sequence[Shape], _: Shape) -> Shape:
    axis = layer.attributes["axis"]
    return (*shapes[0][:axis], len(layer.attributes["indices"]), *shapes[0][axis + 1 :])


_PLAIN: Final = frozenset({"resize", "pad", "reshape", "transpose", "slice", "gather"})
"""Operators that may do without a clamp."""
_WINDOWED: Final = frozenset({"conv", "depthwise", "avg_pool", "max_pool"})
_MAKES: Final[Mapping[str, Callable[[Layer, Sequence[Shape], Shape], Shape]]] = {
    "add": _broadcast,
    "mul": _broadcast,
    "concat": _concat,
    "requantize": _same,
    "clamp": _same,
    "lut": _same,
    "resize": _resize,
    "pad": _pad,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "gather": _gather,
}

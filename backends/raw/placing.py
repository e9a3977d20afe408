"""In which order the codes of each tensor of a program lie in the files for tools."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Final

from qconvert.formats.hardware.order import Order
from qconvert.formats.hardware.packing import Word
from qconvert.formats.hardware.tiling import tile, word_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.formats.hardware.order import Layout
    from qconvert.formats.hardware.tiling import Codes
    from qconvert.integer.program import Layer, Program, Tensor

__all__ = ["LINEAR", "Place", "placings"]

LINEAR: Final = frozenset({"conv", "depthwise", "fc"})
_SHAPED: Final = frozenset({"reshape", "clamp", "requantize", "lut"})
"""Operators behind which a flattened map can still be seen as the map."""


@dataclass(frozen=True, slots=True)
class Place:
    """How the codes of one tensor lie in memory.

    Attributes:
        shape: Its shape as the order sees it: a flattened map [1, C * H * W] may be seen as
            [1, C, H, W].
        axes: A letter for each axis of `shape`.
        order: The order.
    """

    shape: tuple[int, ...]
    axes: str
    order: Order

    def word(self, tensor: Tensor) -> Word:
        """What a word is made of."""
        return Word(tensor.bits, tensor.signed, self.order.width)

    @property
    def depth(self) -> int:
        """Words."""
        return word_count(self.axes, self.shape, self.order)

    def words(self, codes: Codes) -> Codes:
        """Codes [words, lanes] of an array of the tensor's shape."""
        return tile(codes.reshape(self.shape), self.axes, self.order)

    def describe(self, tensor: Tensor) -> dict[str, Any]:
        """The keys of a file's entry in the manifest."""
        word = self.word(tensor)
        keys: dict[str, Any] = {
            "order": str(self.order),
            "word_bits": word.width,
            "lanes": word.lanes,
            "lane_order": "lsb_first",
            "depth": self.depth,
        }
        if (self.shape, self.axes) != (tensor.shape, tensor.axes):
            keys |= {"view": list(self.shape), "view_axes": self.axes}
        return keys


def placings(program: Program, layout: Layout) -> dict[str, Place]:
    """Tensor id → its place, for every tensor of codes.

    Weights, biases, multipliers and shifts of layers with weights follow the layout, and so do
    activations; what else there is (tables, factors of an addition) keeps its natural order.
    """
    views = _views(program)
    found = {
        key: _natural(tensor)
        for key, tensor in program.tensors.items()
        if tensor.encoding != "float" and min(tensor.shape, default=1) > 0
    }
    for key in list(found):
        tensor = program.tensors[key]
        if not tensor.is_parameter:
            found[key] = _ordered(tensor, layout, views.get(key))
    for layer in program.layers:
        if layer.op in LINEAR:
            found |= _linear(program, layer, layout, views)
    return found


def _natural(tensor: Tensor) -> Place:
    """A tensor in its own order, under letters of its own where it has too few."""
    rank = len(tensor.shape)
    axes = tensor.axes
    if len(axes) != rank or len(set(axes)) != rank:
        axes = ascii_uppercase[:rank]
    return Place(tensor.shape, axes, Order.of(axes))


def _ordered(
    tensor: Tensor, layout: Layout, view: tuple[int, ...] | None, *, depthwise: bool = False
) -> Place:
    """A tensor in the order of the layout; a flattened map as the map where that matters."""
    natural = _natural(tensor)
    if view is not None and layout.sees_maps:
        axes = "OIHW" if tensor.is_parameter else "NCHW"
        return Place(view, axes, layout.order(axes))
    order = layout.order(natural.axes, depthwise=depthwise)
    return Place(natural.shape, natural.axes, order)


def _linear(
    program: Program, layer: Layer, layout: Layout, views: Mapping[str, tuple[int, ...]]
) -> dict[str, Place]:
    """The parameters of a layer with weights."""
    weight = program.parameter(layer, "weight")
    assert weight is not None
    outputs = weight.shape[0]
    source = program.tensors[layer.inputs[0]]
    seen = views.get(source.id, source.shape)
    view = None
    if layer.op == "fc" and len(seen) == 4:
        view = (outputs, *seen[1:])
    found = {weight.id: _ordered(weight, layout, view, depthwise=layer.op == "depthwise")}
    for name in ("bias", "multiplier", "shift"):
        tensor = program.parameter(layer, name)
        # One multiplier for all channels is no row of lanes.
        if tensor is not None and tensor.shape == (outputs,):
            found[tensor.id] = Place(tensor.shape, "O", layout.order("O"))
    return found


def _views(program: Program) -> dict[str, tuple[int, ...]]:
    """Tensor id → the map [1, C, H, W] that it is when it is flattened."""
    views: dict[str, tuple[int, ...]] = {}
    for layer in program.layers:
        if layer.op not in _SHAPED:
            continue
        source, result = (program.tensors[side[0]] for side in (layer.inputs, layer.outputs))
        view = views.get(source.id, source.shape if source.axes == "NCHW" else ())
        if len(view) == 4 and result.axes == "NC" and result.shape == (1, prod(view)):
            views[result.id] = view
    return views

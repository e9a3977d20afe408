"""An ncnn network while it is being made: layers that can still be rewritten, blobs without names.

Names, Split layers and bytes come last (`qconvert.backends.ncnn.finish`, `.writer`): until then a
blob is an object, may have any number of readers, and knows its shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qconvert.formats.ncnn_param import Param

__all__ = ["Blob", "Draft", "Integers", "Net", "Shape", "Weight", "is_regular", "view"]

_Int: TypeAlias = int  # Draft has a method called int, and one called float
_Float: TypeAlias = float
_MAX_AXES: Final = 4
Shape: TypeAlias = tuple[int, ...]
Weight: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.int8]


def view(shape: Shape) -> Shape:
    """What ncnn sees of a tensor: its dimensions without a batch axis of 1, outermost first.

    A scalar becomes one element; a tensor that does not begin with 1 keeps every axis. Where more
    than four are left, axes of 1 go, outer ones first (see `is_regular`).
    """
    if not shape:
        return (1,)
    left = list(shape[1:] if len(shape) > 1 and shape[0] == 1 else shape)
    while len(left) > _MAX_AXES and 1 in left:
        left.remove(1)
    return tuple(left)


def is_regular(shape: Shape) -> bool:
    """Whether axis k of `view(shape)` is axis k of `shape`, but for the batch axis."""
    return not shape or len(shape) - len(view(shape)) <= int(len(shape) > 1 and shape[0] == 1)


@dataclass(slots=True, eq=False)
class Blob:
    """One tensor between layers.

    Attributes:
        shape: Dimensions in ncnn, outermost first.
        name: The name it should have; empty while nothing of the model is called by it.
    """

    shape: Shape
    name: str = ""

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(slots=True)
class Integers:
    """How a layer computes on integers.

    Attributes:
        weight_scales: ONNX convention (real = scale * code), float32 [channels or groups].
        input_scale: Of its input, ONNX convention; 0 when quantized at run time.
        bits: Width of the weight codes, as declared by their largest magnitude.
        low: Smallest code of its input.
        high: Largest code of its input.
        output_scale: Of its output when that is int8 as well (a requantize chain).
    """

    weight_scales: npt.NDArray[np.float32]
    input_scale: float
    bits: int = 8
    low: int = -127
    high: int = 127
    output_scale: float | None = None


@dataclass(slots=True, eq=False)
class Draft:
    """One layer to be.

    Attributes:
        kind: ncnn's layer type.
        name: Name of the IR node it stands for (or `<node>/<part>`).
        inputs: Blobs it reads.
        outputs: Blobs it makes.
        params: Id → value.
        weights: By slot name (`qconvert.formats.ncnn_weights`).
        integers: How it computes on integers; None when it is float.
        details: Decisions for the report.

    A layer with integers and an `input_scale` of 0 (LSTM, GRU, RNN) is complete as it is lowered.
    """

    kind: str
    name: str
    inputs: list[Blob]
    outputs: list[Blob]
    params: dict[int, Param] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    integers: Integers | None = None
    details: dict[str, object] = field(default_factory=dict)

    @property
    def calibrated(self) -> Integers | None:
        """How it computes on integers whose input has a scale ahead of time."""
        return self.integers if self.integers is not None and self.integers.input_scale else None

    @property
    def input(self) -> Blob:
        """The only, or first, input."""
        return self.inputs[0]

    @property
    def output(self) -> Blob:
        """The only, or first, output."""
        return self.outputs[0]

    def int(self, key: _Int, default: _Int = 0) -> _Int:
        """The integer parameter `key`."""
        value = self.params.get(key, default)
        assert isinstance(value, int), (self.kind, key, value)
        return value

    def float(self, key: _Int) -> _Float:
        """The number parameter `key`, 0 when it is not given."""
        value = self.params.get(key, 0.0)
        assert isinstance(value, int | float), (self.kind, key, value)
        return float(value)


@dataclass(slots=True)
class Net:
    """All layers in topological order.

    Attributes:
        layers: Input layers first.
        outputs: Name of a network output → its blob.
    """

    layers: list[Draft] = field(default_factory=list)
    outputs: dict[str, Blob] = field(default_factory=dict)

    def producer(self, blob: Blob) -> Draft | None:
        """The layer that makes `blob`."""
        return next((layer for layer in self.layers if blob in layer.outputs), None)

    def is_output(self, blob: Blob) -> bool:
        """Whether the user sees `blob`."""
        return any(blob is output for output in self.outputs.values())

    def links(self) -> Links:
        """Who makes and who reads each blob, as of now."""
        return Links(self)

    def remove(self, layer: Draft) -> None:
        """Take `layer` out; its blobs are the caller's concern."""
        self.layers = [other for other in self.layers if other is not layer]

    def replace(self, old: Draft, new: list[Draft]) -> None:
        """Put `new` where `old` stands."""
        at = next(index for index, layer in enumerate(self.layers) if layer is old)
        self.layers[at : at + 1] = new

    def bypass(self, layer: Draft) -> None:
        """Take `layer` out and let everyone see its input instead of its output."""
        for reader in self.layers:
            reader.inputs = [layer.input if b is layer.output else b for b in reader.inputs]
        for name, blob in self.outputs.items():
            if blob is layer.output:
                self.outputs[name] = layer.input
        self.remove(layer)

    def insert_before(self, layer: Draft, new: Draft) -> None:
        """Put `new` in front of `layer`."""
        self.replace(layer, [new, layer])

    def __iter__(self) -> Iterator[Draft]:
        """The layers as they stand now; rewriting while iterating is safe."""
        return iter(list(self.layers))


class Links:
    """Producer and readers of every blob of a network at one moment.

    A rewrite makes this stale: ask `Net.links()` again.
    """

    def __init__(self, net: Net) -> None:
        self._net = net
        self._producer: dict[int, Draft] = {}
        self._readers: dict[int, list[Draft]] = {}
        for layer in net.layers:
            for blob in layer.outputs:
                self._producer[id(blob)] = layer
            for blob in layer.inputs:
                self._readers.setdefault(id(blob), []).append(layer)

    def producer(self, blob: Blob) -> Draft | None:
        """The layer that makes `blob`."""
        return self._producer.get(id(blob))

    def readers(self, blob: Blob) -> list[Draft]:
        """Every read of `blob`; a layer that reads it twice is in the list twice."""
        return self._readers.get(id(blob), [])

    def only_reader(self, blob: Blob) -> Draft | None:
        """The one layer that reads `blob`; None when others do, or the user sees it."""
        readers = self.readers(blob)
        return readers[0] if len(readers) == 1 and not self._net.is_output(blob) else None

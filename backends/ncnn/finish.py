"""The last step before bytes: names for blobs and layers, Split layers, the order of weights.

ncnn knows a blob by its name, lets one layer make it and one layer read it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.backends.ncnn.net import Blob, Draft
from qconvert.formats.ncnn_bin import Buffer
from qconvert.formats.ncnn_param import MAX_NAME, SHAPE_HINTS, Layer, Network
from qconvert.formats.ncnn_weights import slots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.backends.ncnn.net import Net, Weight
    from qconvert.formats.ncnn_bin import Stored

__all__ = ["Finished", "finish"]

_SPLIT: Final = "splitncnn"


@dataclass(frozen=True, slots=True)
class Finished:
    """A network ready to be written.

    Attributes:
        network: The `.param`.
        buffers: The `.bin`, in order.
        blobs: Name in the model → blob name, for every value the artifact still has.
        drafts: The layers behind `network`, Split layers left out, with their final names.
    """

    network: Network
    buffers: tuple[Buffer, ...]
    blobs: Mapping[str, str]
    drafts: tuple[tuple[str, Draft], ...]


class _Names:
    """Hands out names that ncnn can read, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def give(self, wanted: str) -> str:
        """`wanted`, or something close to it."""
        clean = re.sub(r"[\s\"=]+", "_", wanted)[: MAX_NAME - 16] if wanted else "blob"
        if not clean.isprintable():
            clean = "".join(letter if letter.isprintable() else "_" for letter in clean)
        name, number = clean, 1
        while name in self._taken or len(name.encode()) > MAX_NAME:
            name, number = (
                f"{clean.encode()[: MAX_NAME - 16].decode(errors='ignore')}_{number}",
                (number + 1),
            )
        self._taken.add(name)
        return name


def finish(net: Net, *, fp16: bool = False, hints: bool = False) -> Finished:
    """Name everything, copy blobs with several readers, and put the weights in order.

    Args:
        net: The network; its outputs get blobs of their own.
        fp16: Store tagged float weights as float16.
        hints: Write the shape of every output into the layer.

    Raises:
        AssertionError: If a layer lacks a weight that ncnn will read, or has one it will not: a
            bug of ours that would shift every weight behind it.
    """
    _separate_outputs(net)
    names = _Names()
    blobs: dict[int, str] = {}
    wanted = {id(blob): name for name, blob in net.outputs.items()}
    inputs = [layer.output for layer in net.layers if layer.kind == "Input"]
    for blob in (*inputs, *net.outputs.values()):
        blobs.setdefault(id(blob), names.give(wanted.get(id(blob), blob.name)))
    for layer in net.layers:
        for blob in layer.outputs:
            if id(blob) not in blobs:
                blobs[id(blob)] = names.give(blob.name or layer.name)
    layers, buffers, drafts = _layers(net, blobs, names, fp16=fp16, hints=hints)
    # A value the user sees may have lost its blob to another name; both lead to it.
    named = {
        blob.name: blobs[id(blob)] for layer in net.layers for blob in layer.outputs if blob.name
    }
    named.update({name: blobs[id(blob)] for name, blob in net.outputs.items()})
    return Finished(Network(tuple(layers)), tuple(buffers), named, tuple(drafts))


def _separate_outputs(net: Net) -> None:
    """Give each network output a blob that is neither an input nor another output."""
    seen = {id(layer.output) for layer in net.layers if layer.kind == "Input"}
    for name, blob in net.outputs.items():
        if id(blob) in seen:
            copy = Blob(blob.shape, name)
            net.layers.append(Draft("Noop", f"{name}/copy", [blob], [copy]))
            net.outputs[name] = copy
        seen.add(id(net.outputs[name]))


def _layers(
    net: Net, blobs: Mapping[int, str], blob_names: _Names, *, fp16: bool, hints: bool
) -> tuple[list[Layer], list[Buffer], list[tuple[str, Draft]]]:
    """The lines and weights of all layers, with a Split behind every blob read twice."""
    reads: dict[int, int] = {}
    for draft in net.layers:
        for blob in draft.inputs:
            reads[id(blob)] = reads.get(id(blob), 0) + 1
    layer_names = _Names()
    copies: dict[int, list[str]] = {}
    layers: list[Layer] = []
    buffers: list[Buffer] = []
    drafts: list[tuple[str, Draft]] = []
    splits = 0
    for draft in net.layers:
        inputs = [
            copies[id(blob)].pop(0) if id(blob) in copies else blobs[id(blob)]
            for blob in draft.inputs
        ]
        outputs = [blobs[id(blob)] for blob in draft.outputs]
        params = dict(draft.params)
        if hints:
            params[SHAPE_HINTS] = tuple(n for blob in draft.outputs for n in _hint(blob))
        name = layer_names.give(draft.name)
        layer = Layer(draft.kind, name, tuple(inputs), tuple(outputs), params)
        layers.append(layer)
        buffers.extend(_buffers(layer, draft, fp16=fp16))
        drafts.append((name, draft))
        for blob in draft.outputs:
            seen = net.is_output(blob) and draft.kind != "Input"
            count = reads.get(id(blob), 0)
            if count + seen < 2 or not count:
                continue
            original = blobs[id(blob)]
            copies[id(blob)] = [
                blob_names.give(f"{original}_{_SPLIT}_{index}") for index in range(count)
            ]
            split = layer_names.give(f"{_SPLIT}_{splits}")
            splits += 1
            tops = tuple(copies[id(blob)])
            hint = {SHAPE_HINTS: _hint(blob) * len(tops)} if hints else {}
            layers.append(Layer("Split", split, (original,), tops, hint))
    return layers, buffers, drafts


def _hint(blob: Blob) -> tuple[int, ...]:
    """dims, w, h, d, c."""
    sizes = {"w": 1, "h": 1, "d": 1, "c": 1}
    axes = ("w", "hw", "chw", "cdhw")[len(blob.shape) - 1]
    sizes.update(zip(axes, blob.shape, strict=True))
    return (len(blob.shape), *sizes.values())


def _buffers(layer: Layer, draft: Draft, *, fp16: bool) -> list[Buffer]:
    """The weights of a layer in the order in which ncnn reads them."""
    wanted = slots(layer)
    have = {name: data.size for name, data in draft.weights.items()}
    if {slot.name: slot.count for slot in wanted} != have:
        raise AssertionError(f"{layer.kind} '{layer.name}' reads {wanted}, is given {have}")
    return [
        Buffer(_stored(draft.weights[slot.name], half=fp16 and slot.tagged), tagged=slot.tagged)
        for slot in wanted
    ]


def _stored(data: Weight, *, half: bool) -> Stored:
    """The numbers as they go into the file; halves only where none of them overflows."""
    fits = float(np.abs(data).max(initial=0.0)) < float(np.finfo(np.float16).max)
    return data.astype(np.float16) if half and data.dtype == np.float32 and fits else data

"""Layers that only move numbers: fewer of them, and the ones ncnn has a name for.

reshape(reshape(x))                         =  reshape(x)
[C, H, W] → [a, b, H*W] → swap a and b      =  ShuffleChannel of a groups
part k of [n, C/n, H, W], seen as [C, H, W] =  channels k*C/n to (k+1)*C/n
crops that tile the channels                =  one Slice
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.backends.ncnn.net import Blob, Draft
from qconvert.backends.ncnn.patterns import drop_dead
from qconvert.backends.ncnn.permutation import ORDERS

if TYPE_CHECKING:
    from qconvert.backends.ncnn.net import Net
    from qconvert.formats.ncnn_param import Param

__all__ = ["tidy_shuffles"]

_RESHAPES: Final = frozenset({"Reshape", "Flatten"})
_SWAP: Final = {3: ORDERS[3][1, 0, 2], 4: ORDERS[4][1, 0, 2, 3]}


def tidy_shuffles(net: Net) -> None:
    """Apply every rule of this module until nothing changes."""
    while _merge_reshapes(net) or _name_shuffles(net) or _crop_channels(net):
        pass
    drop_dead(net)
    _tile_crops(net)


def _reshape(source: Blob, result: Blob, name: str) -> Draft:
    """A layer that gives `source` the dimensions of `result`."""
    shape = result.shape
    if len(shape) == 1:
        return Draft("Flatten", name, [source], [result])
    keys = ((1, 0), (2, 1, 0), (2, 11, 1, 0))[len(shape) - 2]
    params: dict[int, Param] = dict(zip(keys, shape, strict=True))
    return Draft("Reshape", name, [source], [result], params)


def _merge_reshapes(net: Net) -> bool:
    """Let every Reshape start from what the Reshapes before it started from."""
    links = net.links()
    changed = False
    for layer in net:
        if layer.kind not in _RESHAPES:
            continue
        before = links.producer(layer.input)
        if before is not None and before.kind in _RESHAPES:
            layer.inputs[0] = before.input
            changed = True
        if layer.input.shape == layer.output.shape:
            net.bypass(layer)
            return True
    return changed


def _name_shuffles(net: Net) -> bool:
    """Reshape, then a Permute that swaps the two parts of the channels → ShuffleChannel."""
    links = net.links()
    for layer in net:
        shape = layer.output.shape
        if layer.kind != "Permute" or layer.int(0) != _SWAP.get(len(shape)):
            continue
        before = links.producer(layer.input)
        if before is None or before.kind != "Reshape" or len(before.input.shape) != 3:
            continue
        channels = before.input.shape[0]
        if shape[0] * shape[1] != channels:
            continue
        shuffled = Blob(before.input.shape)
        shuffle = Draft(
            "ShuffleChannel", layer.name, [before.input], [shuffled], {0: layer.input.shape[0]}
        )
        net.replace(layer, [shuffle, _reshape(shuffled, layer.output, f"{layer.name}/grouped")])
        return True
    return False


def _crop_channels(net: Net) -> bool:
    """A cut through groups of channels → a cut through the channels."""
    links = net.links()
    for layer in net:
        if layer.kind != "Crop" or layer.params.get(11) != (0,):
            continue
        before = links.producer(layer.input)
        if before is None or before.kind != "Reshape" or len(before.input.shape) != 3:
            continue
        grouped, whole = layer.input.shape, before.input.shape
        if whole[0] % grouped[0] or int(np.prod(grouped[1:])) % int(np.prod(whole[1:])):
            continue
        size = whole[0] // grouped[0]
        starts, ends = layer.params[9], layer.params[10]
        assert isinstance(starts, tuple)
        assert isinstance(ends, tuple)
        begin, end = int(starts[0]) * size, int(ends[0]) * size
        taken = Blob((end - begin, *whole[1:]))
        params: dict[int, Param] = {9: (begin,), 10: (end,), 11: (0,)}
        crop = Draft("Crop", layer.name, [before.input], [taken], params)
        net.replace(layer, [crop, _reshape(taken, layer.output, f"{layer.name}/grouped")])
        return True
    return False


def _tile_crops(net: Net) -> None:
    """Crops that share out a blob's channels among them → one Slice."""
    links = net.links()
    done: set[int] = set()
    for layer in net:
        blob = layer.input if layer.inputs else None
        if layer.kind != "Crop" or blob is None or id(blob) in done:
            continue
        done.add(id(blob))
        crops = [
            reader
            for reader in links.readers(blob)
            if reader.kind == "Crop" and reader.params.get(11) == (0,)
        ]
        crops.sort(key=_begin)
        edges = [
            edge for crop in crops for edge in (_begin(crop), _begin(crop) + crop.output.shape[0])
        ]
        if len(crops) < 2 or edges[0] != 0 or edges[-1] != blob.shape[0]:
            continue
        if any(a != b for a, b in zip(edges[1:-1:2], edges[2::2], strict=True)):
            continue
        sizes = tuple(crop.output.shape[0] for crop in crops)
        pieces = [crop.output for crop in crops]
        first = min(crops, key=net.layers.index)
        net.insert_before(first, Draft("Slice", first.name, [blob], pieces, {0: sizes, 1: 0}))
        for crop in crops:
            net.remove(crop)


def _begin(crop: Draft) -> int:
    """Where a cut begins."""
    starts = crop.params[9]
    assert isinstance(starts, tuple)
    return int(starts[0])

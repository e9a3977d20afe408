"""Inputs with fewer codes than int8: the Clip that stock ncnn needs, moved to where it is free.

ncnn's integer layers saturate at ±127. An input that is declared with fewer codes (INT7: ±63)
gets a Clip at ±63 * scale in front, and the Clip then wanders up: through layers that commute
with it (max pools, slices, reshapes, Concat, several readers that want the same) into the
activation of the layer that makes the tensor, where it costs nothing.

    relu, then clip(-T, T)  =  clip(0, T)              Convolution 9=3 -23310=2,0,T
    clip(maxpool(x))        =  maxpool(clip(x))        both are monotone
    clip(concat(a, b))      =  concat(clip(a), clip(b))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from qconvert.backends.ncnn.fuse import FUSIBLE, bounds_of, set_bounds
from qconvert.backends.ncnn.net import Blob, Draft

if TYPE_CHECKING:
    from qconvert.backends.ncnn.net import Net

__all__ = ["clip_inputs"]

_Bounds: TypeAlias = tuple[float, float]
_COMMUTES: Final = frozenset(
    {
        "Reshape",
        "Flatten",
        "Permute",
        "Crop",
        "ShuffleChannel",
        "PixelShuffle",
        "Reorg",
    }
)


def clip_inputs(net: Net, *, relaxed: bool = False) -> None:
    """Put a Clip in front of every integer layer whose input has fewer codes than int8.

    Args:
        net: Changed in place.
        relaxed: Leave the Clips out: inputs then reach ±127 codes, twice the threshold of INT7.
    """
    clipped: dict[tuple[int, _Bounds], Blob] = {}
    for layer in net:
        record = layer.calibrated
        if record is None or (record.low <= -127 and record.high >= 127):
            continue
        if relaxed:
            layer.details["relaxed_range"] = True
            continue
        bounds = (record.low * record.input_scale, record.high * record.input_scale)
        key = (id(layer.input), bounds)
        if key not in clipped:
            clipped[key] = _clipped(net, layer, bounds)
        layer.inputs[0] = clipped[key]


def _clipped(net: Net, layer: Draft, bounds: _Bounds) -> Blob:
    """A blob with the input of `layer` within `bounds`."""
    source = layer.input
    wanting = [
        reader
        for reader in net.links().readers(source)
        if reader.integers is not None
        and reader.calibrated is not None
        and (
            reader.integers.low * reader.integers.input_scale,
            reader.integers.high * reader.integers.input_scale,
        )
        == bounds
    ]
    everyone = len(wanting) == len(net.links().readers(source))
    if everyone and not net.is_output(source) and _absorb(net, source, bounds):
        layer.details["clip"] = "folded into the layers before"
        return source
    clip = Draft(
        "Clip",
        f"{layer.name}/range",
        [source],
        [Blob(source.shape)],
        {0: bounds[0], 1: bounds[1]},
    )
    net.insert_before(layer, clip)
    layer.details["clip"] = "a layer of its own"
    return clip.output


def _absorb(net: Net, blob: Blob, bounds: _Bounds) -> bool:
    """Make whoever produces `blob` stay within `bounds`, if that costs no layer."""
    work = _plan(net, blob)
    if work is None:
        return False
    for layer in work:
        set_bounds(layer, bounds)
    return True


def _plan(net: Net, blob: Blob) -> list[Draft] | None:
    """The layers whose activations can take bounds for `blob`; None when one of them cannot."""
    links = net.links()
    pending = [blob]
    found: list[Draft] = []
    first = True
    while pending:
        current = pending.pop()
        layer = links.producer(current)
        if layer is None or (not first and links.only_reader(current) is None):
            return None
        first = False
        if _commutes(layer):
            pending.extend(layer.inputs)
        elif (layer.kind in FUSIBLE or layer.kind in {"ReLU", "Clip"}) and bounds_of(layer):
            found.append(layer)
        else:
            return None
    return found


def _commutes(layer: Draft) -> bool:
    """Whether clipping its inputs is clipping its output."""
    if layer.kind == "Pooling":
        return layer.int(0) == 0
    return layer.kind in _COMMUTES or layer.kind == "Concat"

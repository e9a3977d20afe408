"""Weights whose scales TensorRT finds again.

A calibration cache has no weights in it: TensorRT quantizes them itself, each output channel by its
largest magnitude over 127. A scale s that was searched for survives when the float weights beside
the cache are what its codes stand for, and the largest code is 127:

    w' = s * clip(round(w / s), ±127)        max |w'| = 127 s        s' = max |w'| / 127 = s

In float32 127 s is rounded, and divided by 127 may come out one unit in the last place off; the
scale is moved to where the two steps give it back.

A channel whose largest code is below 127 (its scale is wider than its weights) cannot survive.
There the scale is max |w| / 127, and the codes follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.quant import F32

__all__ = ["TOP", "Held", "hold", "settled"]

TOP: Final = 127
_TINY: Final = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A weight as it goes beside a cache.

    Attributes:
        weight: float32, on the grid of `scale`.
        scale: [channels], what TensorRT finds for `weight`; 1 for a channel of zeros.
        changed: Channels whose scale could not be kept.
    """

    weight: F32
    scale: F32
    changed: npt.NDArray[np.bool_]


def settled(scale: F32) -> F32:
    """The nearest scales for which `float32(float32(127 s) / 127) = s`."""
    top, found = np.float32(TOP), np.maximum(scale.astype(np.float32), np.float32(_TINY))
    for _ in range(8):
        again = (found * top) / top
        if np.array_equal(again, found):
            break
        found = again
    return found


def hold(weight: F32, codes: npt.NDArray[np.integer], scale: F32, axis: int) -> Held:
    """Give a weight the values from which TensorRT derives its scales.

    Args:
        weight: The float weight; [channels] along `axis`.
        codes: Its codes, -127 to 127.
        scale: [] or [channels], > 0.
        axis: Axis of the output channels.

    Returns:
        Weights on the grid of the codes, of other codes where a channel's scale had to change.
    """
    rows = np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1).astype(np.int32)
    real = np.moveaxis(weight, axis, 0).reshape(rows.shape)
    scales = np.broadcast_to(scale.reshape(-1), (len(rows),)).astype(np.float32)
    dead = ~rows.any(axis=1) & ~real.any(axis=1)
    narrow = (np.abs(rows).max(axis=1, initial=0) < TOP) & ~dead
    limits = np.abs(real).max(axis=1, initial=0)
    own = np.maximum(limits / np.float32(TOP), np.float32(_TINY))
    scales = settled(np.where(narrow, own, scales).astype(np.float32))
    again = np.clip(np.rint(real / scales[:, None]), -TOP, TOP).astype(np.int32)
    rows = np.where(narrow[:, None], again, rows)
    values = rows.astype(np.float32) * scales[:, None]
    shape = (codes.shape[axis], *np.delete(codes.shape, axis))
    result = np.ascontiguousarray(np.moveaxis(values.reshape(shape), 0, axis))
    return Held(result, np.where(dead, np.float32(1), scales), narrow)

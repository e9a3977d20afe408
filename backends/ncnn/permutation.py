"""Axis permutations in ncnn's numbering, with as few axes as the permutation needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.backends.ncnn.net import is_regular
from qconvert.backends.ncnn.registry import Refusal

if TYPE_CHECKING:
    from qconvert.backends.ncnn.context import Context
    from qconvert.backends.ncnn.net import Blob, Shape

__all__ = ["ORDERS", "permute"]

# ncnn numbers the permutations by what becomes (w, h, d, c): src/layer/permute.cpp.
_NUMBERED: Final = {
    "hw": "wh hw",
    "chw": "whc hwc wch cwh hcw chw",
    "cdhw": (
        "whdc hwdc wdhc dwhc hdwc dhwc whcd hwcd wchd cwhd hcwd chwd "
        "wdch dwch wcdh cwdh dcwh cdwh hdcw dhcw hcdw chdw dchw cdhw"
    ),
}


def _table(axes: str, words: str) -> dict[tuple[int, ...], int]:
    """Permutation as numpy has it → ncnn's number; `axes` in order, outermost first."""
    return {
        tuple(axes.index(letter) for letter in reversed(word)): number
        for number, word in enumerate(words.split())
    }


ORDERS: Final = {len(axes): _table(axes, words) for axes, words in _NUMBERED.items()}
"""Rank → numpy permutation → ncnn's order type."""


def permute(ctx: Context, blob: Blob, shape: Shape, order: tuple[int, ...]) -> Blob:
    """The transpose of a tensor of ONNX shape `shape` held by `blob`.

    Returns:
        A blob with the right elements in the right order; its dimensions may still be grouped.

    Raises:
        Refusal: If more than four axes take part.
    """
    dropped = len(shape) - len(blob.shape)
    if is_regular(shape) and order[:dropped] == tuple(range(dropped)) and len(blob.shape) <= 4:
        inner = tuple(axis - dropped for axis in order[dropped:])
        return _layer(ctx, blob, inner)
    sizes, inner = _grouped(shape, order)
    if len(sizes) > 4:
        raise Refusal(f"it permutes {len(sizes)} axes, ncnn has four")
    return _layer(ctx, ctx.reshape(blob, sizes, "grouped"), inner)


def _grouped(shape: Shape, order: tuple[int, ...]) -> tuple[Shape, tuple[int, ...]]:
    """The same permutation without axes of 1, and with neighbours that stay together joined."""
    moving = [axis for axis in order if shape[axis] != 1]
    runs: list[list[int]] = []
    kept = [axis for axis in range(len(shape)) if shape[axis] != 1]
    for axis in moving:
        if runs and kept.index(axis) == kept.index(runs[-1][-1]) + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    in_order = sorted(runs)
    sizes = tuple(int(np.prod([shape[axis] for axis in run])) for run in in_order)
    return sizes or (1,), tuple(in_order.index(run) for run in runs) or (0,)


def _layer(ctx: Context, blob: Blob, order: tuple[int, ...]) -> Blob:
    """A Permute layer, unless nothing moves."""
    if order == tuple(range(len(order))):
        return blob
    shape = tuple(blob.shape[axis] for axis in order)
    number = ORDERS[len(order)][order]
    return ctx.layer("Permute", [blob], {0: number}, shape=shape)

"""Arrays of codes to words of lanes, and back; the order says which code lies where."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qconvert.formats.hardware.order import Order

__all__ = ["Codes", "tile", "untile", "word_count"]

Codes: TypeAlias = npt.NDArray[Any]


def tile(array: Codes, axes: str, order: Order) -> Codes:
    """Put the codes of an array into words.

    Args:
        array: Integers of any shape.
        axes: One letter for each axis of `array`.
        order: An order of these axes.

    Returns:
        Codes [words, lanes], of the type of `array`; lanes beyond the end of an axis hold 0.

    Raises:
        ValueError: If `order` is about other axes.
    """
    _same_axes(axes, array.shape, order)
    steps = [dict(order.loops)[axis] for axis in axes]
    rest = [(0, -size % step) for size, step in zip(array.shape, steps, strict=True)]
    padded = np.pad(array, rest) if any(after for _, after in rest) else array
    split = padded.reshape(_split(padded.shape, steps))
    words = split.transpose(_places(axes, order)).reshape(-1, order.width)
    return np.ascontiguousarray(words)


def untile(words: Codes, axes: str, shape: Sequence[int], order: Order) -> Codes:
    """Take the codes of an array out of words: the inverse of `tile`.

    Args:
        words: Codes [words, lanes].
        axes: One letter for each axis of the array.
        shape: Its shape.
        order: An order of these axes.

    Raises:
        ValueError: If `order` is about other axes, the number of words or lanes is not what
            `tile` makes, or a lane beyond the end of an axis is not 0.
    """
    _same_axes(axes, shape, order)
    if words.shape != (word_count(axes, shape, order), order.width):
        raise ValueError(f"words {words.shape} do not hold {tuple(shape)} in the order '{order}'")
    steps = [dict(order.loops)[axis] for axis in axes]
    full = [size + -size % step for size, step in zip(shape, steps, strict=True)]
    split, places = _split(full, steps), _places(axes, order)
    moved = words.reshape([split[place] for place in places])
    padded = moved.transpose(np.argsort(places)).reshape(full)
    array = np.ascontiguousarray(padded[tuple(slice(size) for size in shape)])
    if np.count_nonzero(words) != np.count_nonzero(array):
        raise ValueError("a lane that belongs to nothing is not 0")
    return array


def word_count(axes: str, shape: Sequence[int], order: Order) -> int:
    """Words that an array takes."""
    sizes = dict(zip(axes, shape, strict=True))
    return prod(-(-sizes[axis] // step) for axis, step in order.loops)


def _same_axes(axes: str, shape: Sequence[int], order: Order) -> None:
    """Refuse an order of other axes."""
    if len(axes) != len(shape) or len(set(axes)) != len(axes) or set(axes) != order.axes:
        raise ValueError(f"'{order}' does not order the axes {axes!r} of {tuple(shape)}")


def _split(shape: Sequence[int], steps: Sequence[int]) -> list[int]:
    """Every axis as (blocks, place in the block)."""
    return [part for size, step in zip(shape, steps, strict=True) for part in (size // step, step)]


def _places(axes: str, order: Order) -> list[int]:
    """Where each part of a split shape goes: loops, lanes, then the blocks of one."""
    loops = [2 * axes.index(axis) for axis, _ in order.loops]
    lanes = [2 * axes.index(axis) + 1 for axis, _ in order.lanes]
    return [
        *loops,
        *lanes,
        *(part for part in range(2 * len(axes)) if part not in {*loops, *lanes}),
    ]

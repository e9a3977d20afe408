"""Detections as sets of boxes: which box of one run is which box of the other.

A detection layer gives one row per object it found, best first: two runs that agree may still
differ in the order of near-equal scores, and in a box that just missed the threshold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from qconvert.quant import F32

__all__ = ["align", "rows"]

_SAME_BOX: Final = 0.5  # the usual IoU from which two boxes are one object


def rows(array: F32) -> F32:
    """The rows of a detection output, [K, 6]: label, score, x0, y0, x1, y1.

    Args:
        array: `[K, 6]`, or Caffe's `[1, 1, K, 7]` whose first column is the image (any leading
            axes of 1). Rows of label -1 are Caffe's way to say that nothing was found.

    Raises:
        ValueError: If the last axis is neither 6 nor 7 (an array without elements is no row).
    """
    if array.size == 0:
        return np.zeros((0, 6), np.float32)
    width = array.shape[-1]
    if width not in (6, 7):
        raise ValueError(f"a detection row has 6 or 7 columns, not {width}")
    table = array.reshape(-1, width)[:, width - 6 :]
    return np.asarray(table[table[:, 0] >= 0], dtype=np.float32)


def _overlaps(a: F32, b: F32) -> npt.NDArray[np.float64]:
    """Intersection over union of every box of `a` [N, 4] with every box of `b` [M, 4]."""
    one, two = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    with np.errstate(invalid="ignore", over="ignore"):
        low = np.maximum(one[..., :2], two[..., :2])
        high = np.minimum(one[..., 2:], two[..., 2:])
        shared = np.clip(high - low, 0.0, None).prod(axis=-1)
        areas = [np.clip(x[..., 2:] - x[..., :2], 0.0, None).prod(axis=-1) for x in (one, two)]
        union = areas[0] + areas[1] - shared
        same = (one == two).all(axis=-1)  # covers boxes without area
        return np.asarray(np.where(same, 1.0, shared / np.where(union > 0, union, np.inf)))


def align(reference: F32, candidate: F32) -> tuple[F32, F32]:
    """Scores and corners of two sets of detections, row against row.

    Boxes of one label are paired from the largest overlap down, as long as it is 0.5 or more.
    A box without a partner stands against a row of zeros, so it counts as an error.

    Args:
        reference: See `rows`.
        candidate: See `rows`.

    Returns:
        Two arrays [N, 5]: score, x0, y0, x1, y1.
    """
    a, b = rows(reference), rows(candidate)
    overlap = np.where(a[:, None, 0] == b[None, :, 0], _overlaps(a[:, 2:], b[:, 2:]), 0.0)
    # Equal overlaps (a box found twice) are told apart by their scores.
    order = np.lexsort((np.abs(a[:, None, 1] - b[None, :, 1]).ravel(), -overlap.ravel()))
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for flat in order:
        i, j = divmod(int(flat), len(b))
        if not overlap[i, j] >= _SAME_BOX:
            break
        if i not in partner and j not in taken:
            partner[i] = j
            taken.add(j)
    zeros = np.zeros(6, np.float32)
    pairs = [(a[i], b[partner[i]] if i in partner else zeros) for i in range(len(a))]
    pairs += [(zeros, b[j]) for j in range(len(b)) if j not in taken]
    table = np.asarray(pairs, dtype=np.float32).reshape(-1, 2, 6)
    return table[:, 0, 1:], table[:, 1, 1:]

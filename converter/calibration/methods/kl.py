"""The threshold whose quantized histogram loses the least information (Kullback-Leibler).

For every candidate `t` from `levels` to `bins - 1`: P is the histogram's first `t` bins, the tail
added to the last of them; Q merges these bins into `levels` equal bins of fractional width
`t / levels` and spreads each one's mean out again. Both stand on a floor of 1e-4. The candidate
with the smallest D = sum P ln(P / Q) wins, the first of equals, and the threshold is the middle of
bin `t`.

The sums are taken from running totals instead of rebuilt for every candidate: only the bins that
a border cuts need looking at one by one, so the whole search costs `bins * levels` steps.

Reference:
    Tencent/ncnn tools/quantize/ncnn2table.cpp, `QuantNet::quantize_KL`, which does the same in
    float32 at 8 bits; S. Migacz, "8-bit inference with TensorRT", GTC 2017.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    F64 = npt.NDArray[np.float64]
    I32 = npt.NDArray[np.int32]
    I64 = npt.NDArray[np.int64]

__all__ = ["BINS", "divergences", "threshold"]

BINS: Final = 2048
_FLOOR: Final = float(np.float32(1e-4))


def threshold(counts: I64, top: float, levels: int) -> float:
    """The largest magnitude to represent.

    Args:
        counts: int64 [bins], a histogram of magnitudes over [0, top], zeros left out.
        top: Upper end of the histogram, > 0.
        levels: Magnitudes the codes can tell apart: 2^(bits - 1) for signed codes.

    Returns:
        In (0, top]. `top` itself where there are too few bins to choose from (an empty
        histogram, 12 bits and more).
    """
    bins = len(counts)
    if levels >= bins or not counts.any():
        return top
    best = levels + int(np.argmin(divergences(counts, levels)))
    return (best + 0.5) * top / bins


def divergences(counts: I64, levels: int) -> F64:
    """D for every candidate.

    Args:
        counts: int64 [bins], not all 0.
        levels: Bins after quantization, below `bins`.

    Returns:
        float64 [bins - levels], for t = levels, levels + 1, ...
    """
    bins = len(counts)
    share = (counts / counts.sum()).astype(np.float32).astype(np.float64)
    raised = share + _FLOOR
    mass = _running(share)
    raised_mass = _running(raised)
    entropy = _running(raised * np.log(raised))
    cut = _borders(bins, levels)

    t = np.arange(levels, bins)
    tail = mass[-1] - mass[t]
    last = raised[t - 1] + tail
    own = entropy[t - 1] + last * np.log(last)

    below = mass.take(cut.floor)
    below += cut.part * share.take(cut.floor, mode="clip")
    means = np.diff(below, axis=1)
    means /= (t / levels)[:, None]
    means += _FLOOR

    # Bins that lie whole within a merged bin share its logarithm.
    weights = raised_mass.take(cut.floor[:, 1:])
    weights -= raised_mass.take(cut.ceil[:, :-1])
    weights[:, -1] += tail
    cross = np.einsum("ij,ij->i", weights, np.log(means))

    # Bins that a border cuts mix two means.
    part = cut.part[:, 1:-1]
    mixed = means[:, 1:] - part * np.diff(means, axis=1)
    pieces = raised.take(cut.floor[:, 1:-1])
    pieces *= part > 0
    cross += np.einsum("ij,ij->i", pieces, np.log(mixed))
    return np.asarray(own - cross, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Borders:
    """Where the borders of the merged bins fall, [candidates, levels + 1] each.

    Attributes:
        floor: The bin a border is in, or begins.
        ceil: The first bin after it that it does not cut.
        part: How far into its bin it is, 0 on an edge.
    """

    floor: I32
    ceil: I32
    part: F64


@functools.lru_cache(maxsize=2)
def _borders(bins: int, levels: int) -> _Borders:
    """Borders of all candidates; the same for every tensor."""
    widths = np.arange(levels, bins) / levels
    borders = np.arange(levels + 1) * widths[:, None]
    floor = np.floor(borders)
    return _Borders(floor.astype(np.int32), np.ceil(borders).astype(np.int32), borders - floor)


def _running(values: F64) -> F64:
    """[0, v0, v0 + v1, ...]."""
    return np.concatenate([[0.0], np.cumsum(values)])

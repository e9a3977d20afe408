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

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    F64 = npt.NDArray[np.float64]
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

    t = np.arange(levels, bins)
    tail = mass[-1] - mass[t]
    last = raised[t - 1] + tail
    own = entropy[t - 1] + last * np.log(last)

    # Borders of the merged bins, [candidates, levels + 1]; the ends are whole numbers.
    borders = np.arange(levels + 1) * (t / levels)[:, None]
    whole = np.floor(borders).astype(np.int64)
    part = borders - whole
    within = np.minimum(whole, bins - 1)
    below = mass[whole] + part * share[within]
    means = (below[:, 1:] - below[:, :-1]) / (t / levels)[:, None]

    # Bins that lie whole within a merged bin share its logarithm.
    first = np.ceil(borders[:, :-1]).astype(np.int64)
    weights = raised_mass[whole[:, 1:]] - raised_mass[first]
    weights[:, -1] += tail
    cross = (weights * np.log(means + _FLOOR)).sum(axis=1)

    # Bins that a border cuts mix two means.
    cut = part[:, 1:-1]
    mixed = cut * means[:, :-1] + (1.0 - cut) * means[:, 1:] + _FLOOR
    border_mass = np.where(cut > 0, raised[within[:, 1:-1]], 0.0)
    cross += (border_mass * np.log(mixed)).sum(axis=1)
    return np.asarray(own - cross, dtype=np.float64)


def _running(values: F64) -> F64:
    """[0, v0, v0 + v1, ...]."""
    return np.concatenate([[0.0], np.cumsum(values)])

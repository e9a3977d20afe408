"""The range that holds a given share of all values, pooled over all samples.

The share is taken of the merged distribution. Averaging the percentiles of single samples, as
some tools do, clips small tensors such as logits at the average of their maxima, and confident
decisions saturate and tie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.calibration.observers import Histogram

    I64 = npt.NDArray[np.int64]

__all__ = ["limits", "threshold"]


def threshold(histogram: Histogram, per_cent: float) -> float:
    """The magnitude below which `per_cent` of all values lie.

    Args:
        histogram: Of all values, not all 0.
        per_cent: 0 to 100; at 100 nothing is clipped.

    Returns:
        Above 0, at most the largest magnitude that was seen.
    """
    share = per_cent / 100.0
    found = _quantile(histogram.magnitudes, histogram.zeros, share) * histogram.width
    return min(found, histogram.range.magnitude)


def limits(histogram: Histogram, per_cent: float) -> tuple[float, float]:
    """The range that holds `per_cent` of all values, the rest cut from both ends alike.

    Args:
        histogram: Of all values, not all 0.
        per_cent: 0 to 100.

    Returns:
        Smallest and largest value to represent, 0 between them or at an end.
    """
    half = len(histogram.counts) // 2
    below, above = histogram.counts[half - 1 :: -1], histogram.counts[half:]
    share = 1.0 - (100.0 - per_cent) / 200.0
    # Everything on the other side counts as "closer to 0 than any value of this side".
    low = _quantile(below, histogram.zeros + int(above.sum()), share) * histogram.width
    high = _quantile(above, histogram.zeros + int(below.sum()), share) * histogram.width
    seen = histogram.range
    return max(-low, min(seen.low, 0.0)), min(high, max(seen.high, 0.0))


def _quantile(counts: I64, nearer: int, share: float) -> float:
    """Bins from 0 outward until `share` of all values is inside, `nearer` of them at 0."""
    total = nearer + int(counts.sum())
    wanted = share * total
    inside = nearer + np.cumsum(counts)
    bin_ = int(np.searchsorted(inside, wanted))
    if wanted <= nearer:
        # The share is reached before the first value: the range must still hold something.
        full = np.flatnonzero(counts)
        return float(full[0] + 1) if len(full) else 0.0
    bin_ = min(bin_, int(np.flatnonzero(counts)[-1]))
    before = inside[bin_] - counts[bin_]
    return float(bin_ + min((wanted - before) / max(int(counts[bin_]), 1), 1.0))

"""Streaming statistics of one tensor.

An observer sees the tensor once per sample, keeps a fixed amount of memory, and merges with
another that saw other samples. All but the moving average hold integers, minima and maxima only,
so any order and any grouping of samples gives the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.quant import F32

    F64 = npt.NDArray[np.float64]
    I64 = npt.NDArray[np.int64]

__all__ = ["BINS", "Histogram", "LinearHistogram", "MovingRange", "Observer", "Range"]

BINS: Final = 8192
"""Bins of a growing histogram on each side of 0. The widest side uses at least half of them."""

_LOG_BINS: Final = BINS.bit_length() - 1
_FINEST: Final = -126  # below it 2^-exponent is no float32, and the tensor is as good as dead


class Observer(Protocol):
    """Something that sees a tensor sample by sample."""

    def update(self, data: F32) -> None:
        """Take in one sample, any shape.

        Raises:
            ValueError: If a value is not finite.
        """

    def merge(self, other: Self) -> None:
        """Take in everything that `other`, which saw later samples, took in."""

    def join(self, other: Self) -> None:
        """Take in what `other` saw of another tensor that must share the scale."""


def _ends(data: F32) -> tuple[float, float]:
    """Smallest and largest value of a sample that is not empty.

    Raises:
        ValueError: If a value is not finite (numpy's min and max hand a NaN through).
    """
    low, high = float(data.min()), float(data.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("a value is not finite")
    return low, high


def _others(data: F32) -> int:
    """How many values are not 0; numpy counts truths several times as fast as floats."""
    return int(np.count_nonzero(data != 0))


@dataclass(slots=True)
class Range:
    """Smallest and largest value, and the size of a sample.

    Attributes:
        low: Smallest value; inf before the first sample.
        high: Largest value; -inf before the first sample.
        size: Elements of the largest sample.
    """

    low: float = math.inf
    high: float = -math.inf
    size: int = 0

    @property
    def magnitude(self) -> float:
        """Largest magnitude; 0 before the first sample."""
        return max(-self.low, self.high, 0.0)

    def update(self, data: F32) -> None:
        """See `Observer.update`."""
        if data.size:
            self.merge(Range(*_ends(data), data.size))

    def merge(self, other: Range) -> None:
        """See `Observer.merge`."""
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)
        self.size = max(self.size, other.size)

    def join(self, other: Range) -> None:
        """See `Observer.join`."""
        self.merge(other)


@dataclass(slots=True)
class MovingRange:
    """Moving averages of each sample's smallest and largest value.

    After the first sample, `average += weight * (value - average)`. Samples count by their order;
    merging two runs equals one run over both up to the rounding of float64.

    Attributes:
        weight: Weight of a new sample, in (0, 1].
        first: Smallest and largest value of the first sample.
        sums: Weighted sums of the smallest and of the largest values.
        decay: What is left of the weight of everything before.
    """

    weight: float
    first: tuple[float, float] | None = None
    sums: tuple[float, float] = (0.0, 0.0)
    decay: float = 1.0

    @property
    def average(self) -> tuple[float, float]:
        """Averages of the smallest and of the largest values; (0, 0) before the first sample."""
        if self.first is None:
            return 0.0, 0.0
        return (
            self.decay * self.first[0] + self.sums[0],
            self.decay * self.first[1] + self.sums[1],
        )

    def update(self, data: F32) -> None:
        """See `Observer.update`."""
        if data.size:
            low, high = _ends(data)
            sums = (self.weight * low, self.weight * high)
            self.merge(MovingRange(self.weight, (low, high), sums, 1.0 - self.weight))

    def merge(self, other: MovingRange) -> None:
        """See `Observer.merge`."""
        if other.first is None:
            return
        self.first = self.first or other.first
        self.sums = (
            other.decay * self.sums[0] + other.sums[0],
            other.decay * self.sums[1] + other.sums[1],
        )
        self.decay *= other.decay

    def join(self, other: MovingRange) -> None:
        """See `Observer.join`: the range that holds both averages."""
        mine, theirs = self.average, other.average
        self.first = (min(mine[0], theirs[0]), max(mine[1], theirs[1]))
        self.sums, self.decay = (0.0, 0.0), 1.0


@dataclass(slots=True)
class Histogram:
    """Counts over a range that grows by itself, without a second pass.

    Bin `i` holds the magnitudes in [i, i + 1) * 2^exponent of values above 0, bin `-1 - i` those
    of values below 0, for i in [0, BINS). The exponent is the smallest that covers everything
    seen. Growing joins neighbours in pairs, which gives exactly the counts that the wider bins
    would have had from the start: neither order nor grouping of samples changes a bit.

    Attributes:
        exponent: log2 of the bin width; None while every value was 0.
        counts: int64 [2 * BINS]; index `BINS + i` is bin i. Zeros are not counted here.
        zeros: How many values were exactly 0.
        range: Smallest and largest value.
    """

    exponent: int | None = None
    counts: I64 = field(default_factory=lambda: np.zeros(2 * BINS, np.int64))
    zeros: int = 0
    range: Range = field(default_factory=Range)

    @property
    def width(self) -> float:
        """Width of a bin; 0 while every value was 0."""
        return 0.0 if self.exponent is None else math.ldexp(1.0, self.exponent)

    @property
    def centres(self) -> F64:
        """Middle of each bin, float64 [2 * BINS]."""
        return np.asarray((np.arange(-BINS, BINS) + 0.5) * self.width, dtype=np.float64)

    @property
    def magnitudes(self) -> I64:
        """Counts of |value| by bin, int64 [BINS]; zeros are not counted."""
        return self.counts[BINS:] + self.counts[BINS - 1 :: -1]

    def update(self, data: F32) -> None:
        """See `Observer.update`."""
        seen = Range()
        seen.update(data)
        self.range.merge(seen)
        zeros = data.size - _others(data)
        self.zeros += zeros
        if zeros == data.size:
            return
        self._cover(max(math.frexp(seen.magnitude)[1] - _LOG_BINS, _FINEST))
        assert self.exponent is not None
        # A power of two scales exactly, so a value on the edge of a bin stays on it.
        flat = data.ravel()
        scaled = flat * np.float32(math.ldexp(1.0, -self.exponent))
        np.abs(scaled, out=scaled)
        index = scaled.astype(np.intp)  # what bincount takes without a second copy
        if seen.low < 0:
            index ^= -(flat < 0).astype(np.intp)  # i becomes -1 - i
            index += BINS
            self.counts += np.bincount(index, minlength=2 * BINS)
        else:
            self.counts[BINS:] += np.bincount(index, minlength=BINS)
        self.counts[BINS] -= zeros

    def merge(self, other: Histogram) -> None:
        """See `Observer.merge`."""
        self.range.merge(other.range)
        self.zeros += other.zeros
        if other.exponent is not None:
            self._cover(other.exponent)
            assert self.exponent is not None
            self.counts += _coarser(other.counts, self.exponent - other.exponent)

    def join(self, other: Histogram) -> None:
        """See `Observer.join`."""
        self.merge(other)

    def _cover(self, exponent: int) -> None:
        """Make bins at least 2^exponent wide."""
        if self.exponent is None:
            self.exponent = exponent
        elif exponent > self.exponent:
            self.counts = _coarser(self.counts, exponent - self.exponent)
            self.exponent = exponent


def _coarser(counts: I64, steps: int) -> I64:
    """Counts of bins that are 2^steps as wide."""
    if steps == 0:
        return counts
    steps = min(steps, _LOG_BINS)
    kept = BINS >> steps
    joined = counts.reshape(-1, 1 << steps).sum(axis=1)
    result = np.zeros_like(counts)
    result[BINS - kept : BINS + kept] = joined
    return result


@dataclass(slots=True)
class LinearHistogram:
    """Counts of |value| over a range known beforehand; zeros are left out.

    Bin i holds `int(|value| / top * bins) == i` in float32, the last bin also what is above.

    Attributes:
        top: Largest magnitude, > 0, float32.
        counts: int64 [bins].

    Reference:
        Tencent/ncnn tools/quantize/ncnn2table.cpp, `QuantNet::quantize_KL`.
    """

    top: float
    counts: I64

    def update(self, data: F32) -> None:
        """See `Observer.update`; `data` must lie within the range that `top` came from."""
        bins = len(self.counts)
        scaled = np.divide(data.ravel(), np.float32(self.top))
        np.abs(scaled, out=scaled)
        scaled *= np.float32(bins)
        index = scaled.astype(np.intp)  # what bincount takes without a second copy
        found = np.bincount(index, minlength=bins + 1)
        found[bins - 1] += found[bins:].sum()
        found[0] -= data.size - _others(data)
        self.counts += found[:bins]

    def merge(self, other: LinearHistogram) -> None:
        """See `Observer.merge`."""
        self.counts += other.counts

    def join(self, other: LinearHistogram) -> None:
        """See `Observer.join`."""
        self.merge(other)

"""How far two arrays are apart. Arrays only, one output of one network.

A figure that is not finite is None: an infinite SNR (no error at all), or anything computed from
a NaN. JSON has no word for either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from qconvert.quant import F32

__all__ = ["Figures", "Totals", "cosine", "finite", "same_first", "standard_error"]


def finite(value: float) -> float | None:
    """`value` as a Python float, or None when it is a NaN or an infinity."""
    return float(value) if math.isfinite(value) else None


def cosine(reference: F32, candidate: F32) -> float:
    """Cosine of the angle between two arrays of one size, in -1..1.

    Returns:
        1 when both are all zeros, 0 when only one is; NaN when a value is not finite.
    """
    a = np.asarray(reference, dtype=np.float64).ravel()
    b = np.asarray(candidate, dtype=np.float64).ravel()
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    # Scaling first keeps the squares of huge or tiny values inside float64.
    high_a, high_b = (float(np.abs(x).max(initial=0.0)) for x in (a, b))
    if high_a == 0.0 or high_b == 0.0:
        return float(high_a == high_b)
    a, b = a / high_a, b / high_b
    value = float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
    return min(1.0, max(-1.0, value))


def same_first(reference: F32, candidate: F32) -> bool:
    """Whether two score vectors have the same winner.

    Where the reference has several equal winners, any of them is right. A NaN never agrees.
    """
    a, b = reference.ravel(), candidate.ravel()
    if np.isnan(a).any() or np.isnan(b).any():
        return False
    return bool(a[int(np.argmax(b))] == a.max())


def standard_error(rate: float, samples: int) -> float | None:
    """Standard error of a rate measured on independent samples, sqrt(p (1-p) / n).

    Returns:
        None without samples.
    """
    return math.sqrt(rate * (1.0 - rate) / samples) if samples > 0 else None


@dataclass(frozen=True, slots=True)
class Figures:
    """What one output looks like against its reference.

    Attributes:
        cosine: Mean over the samples of each sample's cosine.
        snr_db: Signal to noise over all samples together, in dB; None when there is no noise.
        max_abs_error: Largest absolute difference of any element of any sample.
    """

    cosine: float | None
    snr_db: float | None
    max_abs_error: float | None


@dataclass(slots=True)
class Totals:
    """Running sums from which `Figures` follow: memory does not grow with the samples."""

    samples: int = 0
    _cosines: float = field(default=0.0, repr=False)
    _signal: float = field(default=0.0, repr=False)
    _noise: float = field(default=0.0, repr=False)
    _largest: float = field(default=0.0, repr=False)

    def add(self, reference: F32, candidate: F32) -> None:
        """Take in one sample; both arrays have the same number of elements.

        Raises:
            ValueError: If they have not.
        """
        if reference.size != candidate.size:
            raise ValueError(f"{reference.size} elements against {candidate.size}")
        a = np.asarray(reference, dtype=np.float64).ravel()
        b = np.asarray(candidate, dtype=np.float64).ravel()
        self.samples += 1
        self._cosines += cosine(reference, candidate)
        with np.errstate(invalid="ignore", over="ignore"):
            error = b - a
            self._signal += float(a @ a)
            self._noise += float(error @ error)
            # np.max passes a NaN on, where a comparison would drop it.
            self._largest = float(np.max([self._largest, np.abs(error).max(initial=0.0)]))

    def figures(self) -> Figures:
        """The figures so far; all None without samples."""
        if not self.samples:
            return Figures(None, None, None)
        return Figures(
            finite(self._cosines / self.samples),
            self._snr_db(),
            finite(self._largest),
        )

    def _snr_db(self) -> float | None:
        """Ten times the decimal logarithm of signal over noise."""
        powers = (self._signal, self._noise)
        if not all(math.isfinite(power) and power > 0 for power in powers):
            return None
        return 10.0 * (math.log10(self._signal) - math.log10(self._noise))

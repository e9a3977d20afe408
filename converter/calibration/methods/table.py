"""The strategies by name: what each needs to see of an activation, and what it makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from qconvert.calibration.methods import kl, minmax
from qconvert.calibration.observers import Histogram, LinearHistogram, MovingRange, Range

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import numpy.typing as npt

    from qconvert.calibration.settings import Settings
    from qconvert.plan import ActivationSpec
    from qconvert.quant import F32

__all__ = [
    "STRATEGIES",
    "WEIGHT_THRESHOLDS",
    "First",
    "Limits",
    "RowThresholds",
    "Statistics",
    "Strategy",
]

Limits: TypeAlias = tuple[float, float]
"""Smallest and largest value to represent; (-t, t) for codes around 0."""

First: TypeAlias = Range | MovingRange | Histogram


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is known of one activation, or of several that share a scale.

    Attributes:
        range: Smallest and largest value (their averages for `moving-average`).
        histogram: Of all values; None where the strategy does not need it.
        magnitudes: Of |value| over the exact range, from a second pass; None without one.
    """

    range: Range
    histogram: Histogram | None = None
    magnitudes: LinearHistogram | None = None


@dataclass(frozen=True, slots=True)
class Strategy:
    """How thresholds of activations are found.

    Attributes:
        observer: Makes the observer of the first pass over the data.
        limits: Decides. It is not asked about tensors that are 0 throughout.
        bins: Bins of the histogram that a second pass makes; None where one pass is enough.
    """

    observer: Callable[[Settings], First]
    limits: Callable[[Statistics, ActivationSpec, Settings], Limits]
    bins: int | None = None


def _clipped(seen: Range, threshold: float, spec: ActivationSpec) -> Limits:
    """Limits at `threshold` on both sides; with free ends, no further than values go."""
    if spec.asymmetric or (spec.unsigned and seen.low >= 0):
        return max(min(seen.low, 0.0), -threshold), min(max(seen.high, 0.0), threshold)
    return -threshold, threshold


def _levels(seen: Range, spec: ActivationSpec) -> int:
    """Magnitudes that the codes can tell apart: all of them where no value lies below 0."""
    free = seen.low >= 0 and (spec.asymmetric or spec.unsigned)
    return int(2 ** (spec.bits if free else spec.bits - 1))


def _whole_range(known: Statistics, spec: ActivationSpec, _: Settings) -> Limits:
    """Everything that was seen."""
    return _clipped(known.range, known.range.magnitude, spec)


def _least_divergence(known: Statistics, spec: ActivationSpec, _: Settings) -> Limits:
    """The threshold that loses the least information."""
    assert known.magnitudes is not None
    found = kl.threshold(known.magnitudes.counts, known.magnitudes.top, _levels(known.range, spec))
    return _clipped(known.range, found, spec)


STRATEGIES: Final[Mapping[str, Strategy]] = {
    "minmax": Strategy(lambda _: Range(), _whole_range),
    "moving-average": Strategy(lambda settings: MovingRange(settings.averaging), _whole_range),
    "kl": Strategy(lambda _: Range(), _least_divergence, bins=kl.BINS),
}

RowThresholds: TypeAlias = "Callable[[F32, int, Settings], npt.NDArray[np.float64]]"
"""(rows [rows, n], bits, settings) → the largest magnitude to represent of each row."""


def _largest(rows: F32, _bits: int, _settings: Settings) -> npt.NDArray[np.float64]:
    """Nothing is clipped."""
    return minmax.row_thresholds(rows)


WEIGHT_THRESHOLDS: Final[Mapping[str, RowThresholds]] = {
    "minmax": _largest,
    "moving-average": _largest,
    "percentile": _largest,
    "kl": _largest,
}

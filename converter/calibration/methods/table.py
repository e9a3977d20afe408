"""The strategies by name: what each needs to see of an activation, and what it makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from qconvert.calibration.methods import aciq, admm, kl, mse, percentile
from qconvert.calibration.methods.loss import Points, row_magnitudes
from qconvert.calibration.observers import Histogram, LinearHistogram, MovingRange, Range
from qconvert.quant import asymmetric, symmetric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import numpy.typing as npt

    from qconvert.calibration.settings import Settings
    from qconvert.plan import ActivationSpec
    from qconvert.quant import F32, QParams

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


def _free(seen: Range, spec: ActivationSpec) -> bool:
    """Whether codes need not lie around 0: there is a zero point, or nothing below 0."""
    return spec.asymmetric or (spec.unsigned and seen.low >= 0)


def _clipped(seen: Range, threshold: float, spec: ActivationSpec) -> Limits:
    """Limits at `threshold` on both sides; with free ends, no further than values go."""
    if not _free(seen, spec):
        return -threshold, threshold
    low, high = _ends(seen)
    return max(low, -threshold), min(high, threshold)


def _ends(seen: Range) -> Limits:
    """The range that was seen, widened to hold 0."""
    return min(seen.low, 0.0), max(seen.high, 0.0)


def _whole_range(known: Statistics, spec: ActivationSpec, _: Settings) -> Limits:
    """Everything that was seen."""
    return _clipped(known.range, known.range.magnitude, spec)


def _least_divergence(known: Statistics, spec: ActivationSpec, _: Settings) -> Limits:
    """The threshold that loses the least information."""
    assert known.magnitudes is not None
    # Codes that are all above 0 tell twice as many magnitudes apart.
    one_sided = known.range.low >= 0 and _free(known.range, spec)
    levels = 2 ** (spec.bits if one_sided else spec.bits - 1)
    found = kl.threshold(known.magnitudes.counts, known.magnitudes.top, levels)
    return _clipped(known.range, found, spec)


def _pooled_percentile(known: Statistics, spec: ActivationSpec, settings: Settings) -> Limits:
    """The range that holds a given share of all values."""
    assert known.histogram is not None
    if spec.asymmetric:
        return percentile.limits(known.histogram, settings.percentile)
    found = percentile.threshold(known.histogram, settings.percentile)
    return _clipped(known.range, found, spec)


def _least_squares(known: Statistics, spec: ActivationSpec, _: Settings) -> Limits:
    """The range with the smallest mean squared error."""
    assert known.histogram is not None
    points = Points.of(known.histogram)
    if _free(known.range, spec):
        return mse.limits(points, _ends(known.range), spec.bits, signed=not spec.unsigned)
    found = mse.threshold(points, known.range.magnitude, spec.bits)
    return -found, found


def _alternating(known: Statistics, spec: ActivationSpec, _: Settings) -> Limits:
    """Scale and codes in turn."""
    assert known.histogram is not None
    points = Points.of(known.histogram)
    if _free(known.range, spec):
        return admm.limits(points, _ends(known.range), spec.bits, signed=not spec.unsigned)
    found = admm.threshold(points, known.range.magnitude, spec.bits)
    return -found, found


def _analytical(known: Statistics, spec: ActivationSpec, settings: Settings) -> Limits:
    """The threshold that is best for a known shape."""
    assert known.histogram is not None
    seen = known.range
    if settings.aciq_prior == "ncnn":
        sigma = aciq.sigma_from_range(seen.magnitude, seen.size)
        return _clipped(seen, aciq.alpha(spec.bits, "gauss") * sigma, spec)
    points = Points.of(known.histogram)
    free = _free(seen, spec)
    centre = float(points.weights @ points.values) if free and seen.low < 0 else 0.0
    # Values of one sign are half of a symmetric shape about 0, told apart twice as finely.
    bits = spec.bits + 1 if free and seen.low >= 0 else spec.bits
    # A Relu piles values up at 0; the shape of the others is what counts.
    shape = points if centre else points.nonzero()
    reaches = {
        "gauss": aciq.alpha(bits, "gauss") * math.sqrt(shape.moment(2, centre=centre)),
        "laplace": aciq.alpha(bits, "laplace") * shape.moment(1, centre=centre),
    }
    fitted = {p: _around(centre, reach, seen, free=free) for p, reach in reaches.items()}
    if settings.aciq_prior != "auto":
        return fitted[settings.aciq_prior]
    # Tails heavier than both shapes are better not clipped at all.
    whole = _clipped(seen, seen.magnitude, spec)
    return min((whole, *fitted.values()), key=lambda ends: points.loss(parameters(ends, spec)))


def _around(centre: float, reach: float, seen: Range, *, free: bool) -> Limits:
    """Limits `reach` from `centre`, no further than values go."""
    if not free:
        reach = min(reach, seen.magnitude)
        return -reach, reach
    low, high = _ends(seen)
    return max(low, min(centre - reach, 0.0)), min(high, max(centre + reach, 0.0))


def parameters(limits: Limits, spec: ActivationSpec) -> QParams:
    """Parameters that represent `limits`; both 0 for a tensor that is 0 throughout."""
    low, high = limits
    if spec.asymmetric or spec.unsigned:
        return asymmetric(low, high, bits=spec.bits, signed=not spec.unsigned)
    return symmetric(max(-low, high), bits=spec.bits)


STRATEGIES: Final[Mapping[str, Strategy]] = {
    "minmax": Strategy(lambda _: Range(), _whole_range),
    "moving-average": Strategy(lambda settings: MovingRange(settings.averaging), _whole_range),
    "percentile": Strategy(lambda _: Histogram(), _pooled_percentile),
    "kl": Strategy(lambda _: Range(), _least_divergence, bins=kl.BINS),
    "mse": Strategy(lambda _: Histogram(), _least_squares),
    "aciq": Strategy(lambda _: Histogram(), _analytical),
    "admm": Strategy(lambda _: Histogram(), _alternating),
}


def _largest(rows: F32, _bits: int, _settings: Settings) -> npt.NDArray[np.float64]:
    """Nothing is clipped."""
    return row_magnitudes(rows)


RowThresholds: TypeAlias = "Callable[[F32, int, Settings], npt.NDArray[np.float64]]"
"""(rows [rows, n], bits, settings) → the largest magnitude to represent of each row."""

WEIGHT_THRESHOLDS: Final[Mapping[str, RowThresholds]] = {
    "minmax": _largest,
    "moving-average": _largest,
    "percentile": _largest,
    "kl": _largest,
    "mse": lambda rows, bits, _: mse.row_thresholds(rows, bits),
    "aciq": lambda rows, bits, settings: aciq.row_thresholds(rows, bits, settings.aciq_prior),
    "admm": lambda rows, bits, _: admm.row_thresholds(rows, bits),
}

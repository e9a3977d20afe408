"""Observers: exact, mergeable in any grouping, and refusing what is not finite."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qconvert.calibration.observers import (
    BINS,
    Histogram,
    LinearHistogram,
    MovingRange,
    Observer,
    Range,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qconvert.quant import F32

Seen = TypeVar("Seen", bound=Observer)

VALUES = st.one_of(
    st.just(0.0),
    st.just(-0.0),
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.floats(-4.0, 4.0, width=32),
)
SAMPLES = st.lists(
    arrays.arrays(np.float32, st.integers(0, 30), elements=VALUES), min_size=3, max_size=8
)


def seen(observer: Seen, samples: Sequence[F32]) -> Seen:
    made = copy.deepcopy(observer)
    for sample in samples:
        made.update(sample)
    return made


def merged(*parts: Seen) -> Seen:
    whole = copy.deepcopy(parts[0])
    for part in parts[1:]:
        whole.merge(part)
    return whole


def state(observer: Range | Histogram) -> tuple[object, ...]:
    if isinstance(observer, Histogram):
        counts = observer.counts.tobytes()
        return observer.exponent, counts, observer.zeros, state(observer.range)
    return observer.low, observer.high, observer.size


@pytest.mark.parametrize("empty", [Range(), Histogram()], ids=["range", "histogram"])
@given(samples=SAMPLES, data=st.data())
def test_order_and_grouping_change_no_bit(
    empty: Range | Histogram, samples: list[F32], data: st.DataObject
) -> None:
    first, second = sorted(data.draw(st.tuples(*2 * [st.integers(0, len(samples))])))
    parts = (samples[:first], samples[first:second], samples[second:])
    a, b, c = (seen(empty, part) for part in parts)

    whole = state(seen(empty, samples))

    assert state(merged(merged(a, b), c)) == whole
    assert state(merged(a, merged(b, c))) == whole
    assert state(merged(c, a, b)) == whole
    assert state(seen(empty, data.draw(st.permutations(samples)))) == whole


@given(samples=SAMPLES, cut=st.integers(0, 8), weight=st.floats(0.01, 1.0))
def test_moving_ranges_merge_like_one_run(samples: list[F32], cut: int, weight: float) -> None:
    empty = MovingRange(weight)

    joined = merged(seen(empty, samples[:cut]), seen(empty, samples[cut:]))

    scale = max([1e-30, *(float(np.abs(s).max(initial=0)) for s in samples)])
    np.testing.assert_allclose(
        np.array(joined.average) / scale, np.array(seen(empty, samples).average) / scale, atol=1e-12
    )


def test_a_moving_range_follows_the_published_recurrence(rng: np.random.Generator) -> None:
    samples = rng.normal(size=(20, 50)).astype(np.float32)
    low, high = float(samples[0].min()), float(samples[0].max())
    for sample in samples[1:]:
        low += 0.1 * (float(sample.min()) - low)
        high += 0.1 * (float(sample.max()) - high)

    assert seen(MovingRange(0.1), list(samples)).average == pytest.approx((low, high), rel=1e-12)


@given(samples=SAMPLES)
def test_a_grown_histogram_equals_one_counted_at_once(samples: list[F32]) -> None:
    histogram = seen(Histogram(), samples)
    values = np.concatenate(samples).astype(np.float64)
    values = values[values != 0]

    assert histogram.zeros == sum(sample.size for sample in samples) - values.size
    if histogram.exponent is None:
        assert not values.size
        return
    bins = np.floor(np.ldexp(np.abs(values), -histogram.exponent)).astype(int)
    bins = np.where(values < 0, -1 - bins, bins)
    np.testing.assert_array_equal(histogram.counts, np.bincount(bins + BINS, minlength=2 * BINS))


@given(samples=SAMPLES)
def test_half_of_the_bins_are_in_use(samples: list[F32]) -> None:
    histogram = seen(Histogram(), samples)

    magnitude = histogram.range.magnitude
    if histogram.exponent is not None and magnitude > 1e-30:
        assert BINS / 2 <= magnitude / histogram.width < BINS


def test_a_linear_histogram_counts_like_numpy(rng: np.random.Generator) -> None:
    data = rng.normal(size=10_000).astype(np.float32)
    data[:100] = 0
    top = float(np.abs(data).max())

    histogram = LinearHistogram(top, np.zeros(2048, np.int64))
    histogram.update(data)

    counts, _ = np.histogram(np.abs(data[100:]) / np.float32(top), bins=2048, range=(0, 1))
    np.testing.assert_array_equal(histogram.counts, counts)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("observer", [Range(), MovingRange(0.1), Histogram()])
def test_what_is_not_finite_is_refused(
    observer: Range | MovingRange | Histogram, value: float
) -> None:
    sample = np.ones((2, 3), np.float32)
    sample[1, 1] = value

    with pytest.raises(ValueError, match="finite"):
        copy.deepcopy(observer).update(sample)


def test_joined_moving_ranges_hold_both() -> None:
    wide = seen(MovingRange(0.5), [np.array([-1, 9], np.float32)])
    narrow = seen(MovingRange(0.5), [np.array([-2, 1], np.float32)])

    narrow.join(wide)

    assert narrow.average == (-2, 9)

"""Threshold strategies against their definitions, published tables and brute force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.calibration.methods import aciq, admm, kl, mse, percentile
from qconvert.calibration.methods.loss import Points, row_loss, row_magnitudes
from qconvert.calibration.observers import Histogram, LinearHistogram
from qconvert.quant import asymmetric, dequantize, quantize, symmetric

if TYPE_CHECKING:
    from qconvert.quant import F32, QParams

WIDTHS = (2, 3, 4, 5, 6, 7, 8, 16)


def histogram(data: F32) -> Histogram:
    made = Histogram()
    made.update(data)
    return made


def true_loss(data: F32, params: QParams) -> float:
    error = data.astype(np.float64) - dequantize(quantize(data, params), params)
    return float(np.mean(error**2))


@dataclass(frozen=True)
class Shape:
    id: str
    name: str

    def sample(self, count: int, seed: int = 0) -> F32:
        rng = np.random.default_rng(seed)
        normal = rng.normal(size=count)
        made = {
            "normal": 0.3 + 2.0 * normal,
            "laplace": rng.laplace(0.0, 1.0, count),
            "relu": np.maximum(normal, 0.0),
            "heavy": normal * rng.gamma(0.5, size=count),
            "negative": -rng.exponential(1.0, count),
        }
        return made[self.name].astype(np.float32)


SHAPES = [Shape(name, name) for name in ("normal", "laplace", "relu", "heavy", "negative")]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda case: case.id)
@pytest.mark.parametrize("share", [50.0, 99.0, 99.99, 100.0])
def test_percentiles_are_those_of_the_pooled_values(shape: Shape, share: float) -> None:
    data = shape.sample(50_000)
    made = histogram(data)

    found = percentile.threshold(made, share)

    if share < 100 and np.quantile(np.abs(data), share / 100) > 0:
        assert found == pytest.approx(np.quantile(np.abs(data), share / 100), abs=2 * made.width)
    assert 0 < found <= np.abs(data).max()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda case: case.id)
def test_percentile_limits_cut_both_ends_alike(shape: Shape) -> None:
    data = shape.sample(50_000)
    made = histogram(data)

    low, high = percentile.limits(made, 99.0)

    wanted = np.quantile(data, [0.005, 0.995])
    assert low == pytest.approx(min(wanted[0], 0.0), abs=2 * made.width)
    assert high == pytest.approx(max(wanted[1], 0.0), abs=2 * made.width)


@given(
    data=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40),
    share=st.floats(50, 100),
)
def test_a_percentile_always_leaves_a_range(data: list[float], share: float) -> None:
    values = np.array(data, np.float32)
    if not values.any():
        return
    made = histogram(values)

    low, high = percentile.limits(made, share)

    assert 0 < percentile.threshold(made, share) <= made.range.magnitude
    assert low <= 0 <= high
    assert high > low


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda case: case.id)
def test_mse_is_as_good_as_trying_every_threshold(shape: Shape, bits: int) -> None:
    data = shape.sample(5000)
    top = float(np.abs(data).max())

    found = mse.threshold(Points.of(histogram(data)), top, bits)

    tried = [true_loss(data, symmetric(top * i / 100, bits=bits)) for i in range(1, 101)]
    # 16-bit codes are finer than the histogram's bins: it cannot tell the last thousandths.
    slack = 1.02 if bits <= 8 else 1.6
    assert true_loss(data, symmetric(found, bits=bits)) <= slack * min(tried)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda case: case.id)
def test_mse_limits_are_as_good_as_trying_every_range(shape: Shape, bits: int) -> None:
    data = shape.sample(5000)
    seen = min(float(data.min()), 0.0), max(float(data.max()), 0.0)

    found = mse.limits(Points.of(histogram(data)), seen, bits, signed=False)

    tried = [
        true_loss(data, asymmetric(seen[0] * i / 24, seen[1] * j / 24, bits=bits))
        for i in range(1, 25)
        for j in range(1, 25)
    ]
    assert true_loss(data, asymmetric(*found, bits=bits)) <= 1.03 * min(tried)


def test_aciq_factors_equal_the_published_tables() -> None:
    # ncnn2table.cpp (alpha_gaussian) and the ACIQ authors' table for Laplace's distribution.
    gauss = [1.71063519, 2.15159277, 2.55913646, 2.93620062, 3.28691474, 3.6151146, 3.92403714]
    laplace = [2.83068299, 3.89722946, 5.02864014, 6.20476633, 7.41312622, 8.64561995, 9.89675982]

    for bits, wanted in enumerate(gauss, 2):
        assert aciq.alpha(bits, "gauss") == pytest.approx(wanted, rel=1e-5)
    for bits, wanted in enumerate(laplace, 2):
        assert aciq.alpha(bits, "laplace") == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("bits", [3, 4, 6])
@pytest.mark.parametrize("prior", ["gauss", "laplace"])
def test_aciq_is_near_the_best_threshold_for_its_own_shape(prior: str, bits: int) -> None:
    data = Shape("", "normal" if prior == "gauss" else "laplace").sample(50_000)
    data -= data.mean()
    scale = data.std() if prior == "gauss" else np.abs(data).mean()

    found = aciq.alpha(bits, "gauss" if prior == "gauss" else "laplace") * float(scale)

    tried = [
        true_loss(data, symmetric(float(np.abs(data).max()) * i / 100, bits=bits))
        for i in range(5, 101)
    ]
    assert true_loss(data, symmetric(found, bits=bits)) <= 1.1 * min(tried)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda case: case.id)
def test_admm_never_loses_more_than_the_whole_range(shape: Shape, bits: int) -> None:
    data = shape.sample(5000)
    top = float(np.abs(data).max())

    found = admm.threshold(Points.of(histogram(data)), top, bits)

    whole = true_loss(data, symmetric(top, bits=bits))
    assert true_loss(data, symmetric(found, bits=bits)) <= 1.05 * whole


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda case: case.id)
def test_admm_limits_never_lose_more_than_the_whole_range(shape: Shape, bits: int) -> None:
    data = shape.sample(5000)
    seen = min(float(data.min()), 0.0), max(float(data.max()), 0.0)

    found = admm.limits(Points.of(histogram(data)), seen, bits, signed=False)

    whole = true_loss(data, asymmetric(*seen, bits=bits))
    assert true_loss(data, asymmetric(*found, bits=bits)) <= 1.05 * whole


def test_on_normal_samples_admm_clips_above_kl_and_near_three_sigma() -> None:
    """The textbook experiment: a few thousand normal samples, 8 bits."""
    ratios = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        data = rng.normal(rng.uniform(-1, 1), rng.uniform(0.1, 10), 2000).astype(np.float32)
        top = float(np.abs(data).max())
        counts = LinearHistogram(top, np.zeros(kl.BINS, np.int64))
        counts.update(data)

        by_admm = admm.threshold(Points.of(histogram(data)), top, 8)

        # Where KL clips nothing but the outermost bin, the two meet within a thousandth.
        assert 1.001 * by_admm > kl.threshold(counts.counts, top, 128)
        edge = max(abs(data.mean() - 3 * data.std()), abs(data.mean() + 3 * data.std()))
        ratios.append(by_admm / float(edge))
    assert np.mean(ratios) == pytest.approx(1.1, abs=0.15)
    assert 0.9 < min(ratios) < max(ratios) < 1.6


@pytest.mark.parametrize("bits", WIDTHS)
def test_searched_rows_never_lose_more_than_the_whole_range(
    bits: int, rng: np.random.Generator
) -> None:
    rows = (rng.normal(size=(16, 200)) * rng.gamma(1.0, size=(16, 200))).astype(np.float32)
    rows[3] = 0.0
    whole = row_loss(rows, row_magnitudes(rows), bits)

    for found in (
        mse.row_thresholds(rows, bits),
        admm.row_thresholds(rows, bits),
        aciq.row_thresholds(rows, bits, "auto"),
    ):
        assert (row_loss(rows, found, bits) <= whole).all()
        assert found[3] == 0.0
    if bits <= 4:
        assert row_loss(rows, mse.row_thresholds(rows, bits), bits).sum() < 0.85 * whole.sum()


def test_aciq_rows_follow_ncnn_where_asked(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(4, 288)).astype(np.float32)
    # ncnn2table.cpp, compute_aciq_gaussian_clip.
    factor = 0.5 * 0.35 * (1 + np.sqrt(3.14159265358979323846 * np.log(4)))
    wanted = 3.92403714 * np.abs(rows).max(axis=1) * 2 * factor / np.sqrt(2 * np.log(288))

    np.testing.assert_allclose(aciq.row_thresholds(rows, 8, "ncnn"), wanted, rtol=1e-6)


def test_points_lose_what_the_values_lose() -> None:
    data = Shape("", "heavy").sample(50_000)
    points = Points.of(histogram(data))

    for bits in WIDTHS[:-1]:
        params = symmetric(2.0, bits=bits)
        assert points.loss(params) == pytest.approx(true_loss(data, params), rel=0.02)

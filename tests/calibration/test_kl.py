"""The KL search against ncnn2table's own function and the definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.calibration.methods import kl

if TYPE_CHECKING:
    from collections.abc import Callable

    Counts = np.ndarray[Any, np.dtype[np.int64]]

INDEX = np.arange(2048)


@dataclass(frozen=True)
class Case:
    """Counts by a formula, and the threshold ncnn2table's code finds for them at absmax 6.

    Measured by compiling the body of `QuantNet::quantize_KL` of Tencent/ncnn a4d2ea1d4.
    """

    id: str
    counts: Callable[[], Any]
    threshold: float


CASES = [
    Case("gaussian", lambda: np.exp(-((INDEX / 500) ** 2)) * 100_000, 4.87939453),
    Case("exponential", lambda: np.exp(-INDEX / 150) * 1e6, 4.54541016),
    Case(
        "spike_and_tail",
        lambda: np.where(INDEX < 40, 50_000, 0) + np.where(INDEX % 7 == 0, 30, 2),
        4.99951172,
    ),
    Case("uniform", lambda: np.full(2048, 1000.0), 5.99853516),
    Case("sparse", lambda: np.where(INDEX % 13 == 0, 5000 / (1 + INDEX / 100), 0), 5.95751953),
    Case(
        "two_humps",
        lambda: (
            np.exp(-(((INDEX - 200) / 80) ** 2)) * 30_000
            + np.exp(-(((INDEX - 1500) / 100) ** 2)) * 900
        ),
        5.05224609,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_thresholds_equal_ncnn2table(case: Case) -> None:
    counts = np.floor(case.counts()).astype(np.int64)

    assert kl.threshold(counts, 6.0, 128) == pytest.approx(case.threshold, rel=1e-7)


@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([2, 8, 16, 31, 32]),
    sparse=st.floats(0.0, 0.9),
)
def test_divergences_equal_the_definition_written_out(
    seed: int, levels: int, sparse: float
) -> None:
    rng = np.random.default_rng(seed)
    counts = (rng.exponential(1000, 64) * (rng.random(64) > sparse)).astype(np.int64)
    counts[0] += 1
    share = (counts / counts.sum()).astype(np.float32).astype(np.float64)
    floor = float(np.float32(1e-4))

    fast = kl.divergences(counts, levels)

    for row, t in enumerate(range(levels, 64)):
        p = share[:t] + floor
        p[-1] += share[t:].sum()
        # How much of fine bin i lies in merged bin j, as a matrix.
        edges = np.arange(levels + 1) * t / levels
        fine = np.arange(t)[:, None]
        part = np.clip(np.minimum(fine + 1, edges[1:]) - np.maximum(fine, edges[:-1]), 0, None)
        means = share[:t] @ part / (t / levels)
        q = part @ means + floor
        wanted = float((p * np.log(p / q)).sum())
        assert fast[row] == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("levels", [2, 4, 8, 16, 32, 64, 128, 256, 1024, 2047])
def test_every_width_gives_a_threshold_within_the_range(levels: int) -> None:
    counts = np.floor(np.exp(-INDEX / 200) * 1e5).astype(np.int64)

    assert 0 < kl.threshold(counts, 3.0, levels) <= 3.0


@pytest.mark.parametrize("levels", [2048, 32768])
def test_wide_codes_clip_nothing(levels: int) -> None:
    assert kl.threshold(np.ones(2048, np.int64), 3.0, levels) == 3.0


def test_an_empty_histogram_clips_nothing() -> None:
    assert kl.threshold(np.zeros(2048, np.int64), 3.0, 128) == 3.0

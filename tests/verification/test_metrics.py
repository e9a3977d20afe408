from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qconvert.verification.metrics import Totals, cosine, same_first, standard_error

if TYPE_CHECKING:
    from qconvert.quant import F32

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)
PAIRS = hnp.array_shapes(max_dims=2, max_side=6).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=FLOATS),
        hnp.arrays(np.float32, shape, elements=FLOATS),
    )
)


def f32(*values: float) -> F32:
    return np.asarray(values, dtype=np.float32)


@given(PAIRS)
def test_cosine_is_symmetric_and_within_its_range(pair: tuple[F32, F32]) -> None:
    a, b = pair

    assert -1.0 <= cosine(a, b) <= 1.0
    assert cosine(a, b) == cosine(b, a)
    assert cosine(a, a) == pytest.approx(1.0)


@given(PAIRS, st.sampled_from([2.0**-60, 0.5, 8.0, 2.0**20]))
def test_cosine_does_not_see_the_scale(pair: tuple[F32, F32], factor: float) -> None:
    a, b = (np.where(np.abs(x) < 2.0**-60, np.float32(0), x) for x in pair)  # no subnormals

    assert cosine(a * np.float32(factor), b) == pytest.approx(cosine(a, b), abs=1e-9)


def test_cosine_of_zeros() -> None:
    assert cosine(f32(0, 0), f32(0, 0)) == 1.0
    assert cosine(f32(0, 0), f32(0, 1)) == 0.0
    assert cosine(f32(), f32()) == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_gives_no_figures(bad: float) -> None:
    totals = Totals()
    totals.add(f32(1, 2), f32(1, 2.5))
    totals.add(f32(1, 2), f32(bad, 2))
    totals.add(f32(1, 2), f32(1, 2.5))

    figures = totals.figures()

    assert figures.cosine is None
    assert figures.snr_db is None
    assert figures.max_abs_error is None


def test_snr_counts_all_samples_together_and_cosine_each_alone() -> None:
    totals = Totals()
    totals.add(f32(3, 4), f32(3, 4))
    totals.add(f32(1, 0), f32(0, 1))

    figures = totals.figures()

    assert figures.cosine == pytest.approx(0.5)
    assert figures.snr_db == pytest.approx(10 * math.log10(26 / 2))
    assert figures.max_abs_error == 1.0


def test_no_noise_has_no_snr() -> None:
    totals = Totals()
    totals.add(f32(1, 2), f32(1, 2))

    assert totals.figures().snr_db is None
    assert totals.figures().max_abs_error == 0.0


def test_no_samples_give_no_figures() -> None:
    assert Totals().figures().cosine is None


def test_arrays_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 elements against 3"):
        Totals().add(f32(1, 2), f32(1, 2, 3))


def test_any_of_equal_winners_agrees() -> None:
    assert same_first(f32(1, 3, 3), f32(0, 1, 2))
    assert same_first(f32(1, 3, 3), f32(0, 2, 1))
    assert not same_first(f32(1, 3, 3), f32(2, 1, 1))
    assert not same_first(f32(1, 3), f32(math.nan, 9))


@given(st.integers(1, 10_000), st.data())
def test_standard_error_is_that_of_repeated_coin_throws(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    throws = np.repeat([1.0, 0.0], [hits, n - hits])

    assert standard_error(hits / n, n) == pytest.approx(throws.std() / math.sqrt(n), abs=1e-12)


def test_no_samples_have_no_standard_error() -> None:
    assert standard_error(0.0, 0) is None

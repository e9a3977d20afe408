"""Rounding shifts against Python's own integers and fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.integer.multiplier import (
    common_shift,
    fixed_point,
    is_power_of_two,
    power_of_two,
)
from qconvert.integer.program import ROUNDINGS, Rounding
from qconvert.integer.rounding import rescale, shift_right

SHIFTS = st.integers(0, 62)
INT32 = st.integers(-(2**31), 2**31 - 1)
MULTIPLIERS = st.integers(0, 2**31 - 1)


def _half_away(value: Fraction) -> int:
    rounded = floor(abs(value) + Fraction(1, 2))
    return rounded if value >= 0 else -rounded


def _exact(value: Fraction, rounding: Rounding) -> int:
    """Rounding by the definition, on fractions."""
    if rounding == "half_up":
        return floor(value + Fraction(1, 2))
    return round(value) if rounding == "half_even" else _half_away(value)


def _gemmlowp(value: int, multiplier: int, shift: int) -> int:
    """TensorFlow Lite's MultiplyByQuantizedMultiplier, on Python integers."""
    raised = max(-(2**31), min(value * 2 ** max(31 - shift, 0), 2**31 - 1))
    product = raised * multiplier
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    high = int(Fraction(nudged, 2**31))  # cuts toward zero
    return _half_away(Fraction(high, 2 ** max(shift - 31, 0)))


@pytest.mark.parametrize("rounding", ["half_up", "half_even", "half_away"])
@given(value=INT32, multiplier=MULTIPLIERS, shift=SHIFTS)
def test_one_rounding_equals_the_fraction(
    rounding: Rounding, value: int, multiplier: int, shift: int
) -> None:
    found = rescale(np.array([value]), np.array([multiplier]), np.array([shift]), rounding)

    assert found.tolist() == [_exact(Fraction(value * multiplier, 2**shift), rounding)]


@pytest.mark.parametrize("rounding", ["half_up", "half_even", "half_away"])
@given(value=st.integers(-(2**61), 2**61 - 1), multiplier=MULTIPLIERS, shift=st.integers(0, 62))
def test_wide_sums_are_exact_until_they_saturate(
    rounding: Rounding, value: int, multiplier: int, shift: int
) -> None:
    exact = _exact(Fraction(value * multiplier, 2**shift), rounding)

    found = rescale(np.array([value]), np.array([multiplier]), np.array([shift]), rounding, bits=62)

    if abs(exact) < 2**60:
        assert found.tolist() == [exact]
    else:
        assert abs(int(found[0])) >= 2**60
        assert (found[0] > 0) == (exact > 0)


@pytest.mark.parametrize("rounding", ["half_up", "half_even", "half_away"])
@given(odd=st.integers(-(2**17), 2**17), shift=st.integers(1, 40))
def test_ties_go_where_the_name_says(rounding: Rounding, odd: int, shift: int) -> None:
    value = (2 * odd + 1) << (shift - 1)  # exactly half way between odd and odd + 1

    wide = rescale(np.array([value]), np.array([1]), np.array([shift]), rounding, bits=62)

    assert wide.tolist() == [_exact(Fraction(2 * odd + 1, 2), rounding)]
    assert shift_right(np.array([value]), shift, rounding).tolist() == wide.tolist()


@given(value=INT32, multiplier=st.integers(2**30, 2**31 - 1), shift=SHIFTS)
def test_two_roundings_equal_gemmlowp(value: int, multiplier: int, shift: int) -> None:
    found = rescale(np.array([value]), np.array([multiplier]), np.array([shift]), "tflite_double")

    assert found.tolist() == [_gemmlowp(value, multiplier, shift)]


def test_rules_differ_on_ties_only_and_as_documented() -> None:
    values = np.array([-5, -3, -1, 1, 3, 5])  # halves of odd numbers

    found = {rule: shift_right(values, 1, rule).tolist() for rule in ROUNDINGS}

    assert found["half_up"] == [-2, -1, 0, 1, 2, 3]
    assert found["half_even"] == [-2, -2, 0, 0, 2, 2]
    assert found["half_away"] == found["tflite_double"] == [-3, -2, -1, 1, 2, 3]


@given(factor=st.floats(1e-9, 2**14), bits=st.sampled_from([31, 16, 15]))
def test_a_multiplier_is_as_close_as_its_bits_allow(factor: float, bits: int) -> None:
    (multiplier,), (shift,) = fixed_point([factor], bits)

    assert 2 ** (bits - 1) <= multiplier < 2**bits
    assert 0 <= shift <= 62
    error = abs(Fraction(int(multiplier), 2 ** int(shift)) - Fraction(factor))
    assert error <= Fraction(1, 2 ** (int(shift) + 1))


def test_a_factor_that_rounds_up_to_the_next_power_keeps_its_bits() -> None:
    multiplier, shift = fixed_point([1 - 2**-40], 31)

    assert (multiplier.tolist(), shift.tolist()) == ([2**30], [30])


def test_tiny_factors_lose_bits_instead_of_shifting_further() -> None:
    multiplier, shift = fixed_point([2.0**-50, 2.0**-90], 31)

    assert (multiplier.tolist(), shift.tolist()) == ([2**12, 0], [62, 62])


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf"), 2.0**31])
def test_what_is_no_factor_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=r"factor|fit"):
        fixed_point([factor], 31)


@given(factors=st.lists(st.floats(1e-6, 100), min_size=2, max_size=4))
def test_factors_of_a_sum_share_a_shift(factors: list[float]) -> None:
    multipliers, shift = common_shift(factors, 31)

    assert max(multipliers) >= 2**30
    for factor, multiplier in zip(factors, multipliers, strict=True):
        assert abs(Fraction(int(multiplier), 2**shift) - Fraction(factor)) <= Fraction(
            1, 2 ** (shift + 1)
        )


@given(exponent=st.integers(-62, 40))
def test_powers_of_two_shift_exactly(exponent: int) -> None:
    (multiplier,), (shift,) = power_of_two([2.0**exponent])

    assert Fraction(int(multiplier), 2 ** int(shift)) == Fraction(2) ** exponent
    assert multiplier == 1 or shift == 0
    assert is_power_of_two(2.0**exponent)
    assert not is_power_of_two(3 * 2.0**exponent)


def test_other_factors_are_no_shift() -> None:
    with pytest.raises(ValueError, match="power of two"):
        power_of_two([0.5, 0.3])

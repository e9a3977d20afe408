"""Codes that are exponents, and scales that are powers of two, against plain arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.quant import (
    LOG2_BITS,
    QParams,
    dequantize,
    is_power_of_two,
    log2,
    powers_around,
    quantize,
)

WIDTHS = st.sampled_from(sorted(LOG2_BITS))
SCALES = st.floats(2.0**-20, 2.0**20, width=32)
VALUES = st.lists(st.floats(-(2.0**22), 2.0**22, width=32), min_size=1, max_size=30)


def values_of(params: QParams) -> dict[int, Fraction]:
    """Code → value, by the definition and with exact numbers."""
    top = 2 ** (params.bits - 1) - 1
    scale = Fraction(float(params.scale))
    found = {0: Fraction(0)}
    for m in range(1, top + 1):
        found[m] = scale * Fraction(2) ** (m - top)
        found[-m] = -found[m]
    return found


@given(SCALES, WIDTHS)
def test_every_exponent_code_means_what_the_definition_says(scale: float, bits: int) -> None:
    params = log2(scale, bits=bits)
    wanted = values_of(params)

    real = dequantize(np.array(list(wanted)), params)

    assert [Fraction(float(value)) for value in real] == list(wanted.values())


@given(VALUES, SCALES, WIDTHS)
def test_a_weight_gets_the_code_of_the_nearest_value(
    weights: list[float], scale: float, bits: int
) -> None:
    params = log2(scale, bits=bits)
    ratios = np.array(weights, np.float32) / params.scale  # ONNX divides in float32: so do we
    meant = values_of(log2(1.0, bits=bits))

    codes = quantize(np.array(weights, np.float32), params)

    for ratio, code in zip(ratios.tolist(), codes.tolist(), strict=True):
        errors = {other: abs(Fraction(ratio) - value) for other, value in meant.items()}
        assert errors[code] == min(errors.values())
        if list(errors.values()).count(errors[code]) > 1:
            assert code % 2 == 0


@given(SCALES, WIDTHS)
def test_exponent_codes_survive_a_round_trip(scale: float, bits: int) -> None:
    params = log2(scale, bits=bits)
    codes = np.arange(params.low, params.high + 1)

    np.testing.assert_array_equal(quantize(dequantize(codes, params), params), codes)


def test_exponent_codes_follow_their_channels() -> None:
    params = log2(np.array([1, 8], np.float32), bits=3, axis=1)
    weights = np.array([[0.3, 3.0], [-1.0, -100.0]], np.float32)

    codes = quantize(weights, params)

    np.testing.assert_array_equal(codes, [[1, 2], [-3, -3]])
    np.testing.assert_array_equal(dequantize(codes, params), [[0.25, 4.0], [-1.0, -8.0]])
    np.testing.assert_array_equal(params.threshold, [1, 8])


@pytest.mark.parametrize("bits", [7, 8, 16], ids=str)
def test_wide_exponents_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="2 to 6 bits"):
        log2(1.0, bits=bits)


@given(st.floats(2.0**-120, 2.0**120, width=32))
def test_powers_around_a_scale_enclose_it(scale: float) -> None:
    below, above = (float(power) for power in powers_around(np.asarray(scale, np.float32)))

    assert below <= scale <= above
    assert above in {below, 2 * below}
    assert (above == below) == (math.frexp(scale)[0] == 0.5)
    assert is_power_of_two(np.array([below, above], np.float32))

"""Real factors as hardware has them: an integer multiplier and a shift to the right.

factor ~ M / 2^s,    0 <= M < 2^bits,    0 <= s <= 62
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qconvert.integer.rounding import I64

__all__ = ["LARGEST_SHIFT", "common_shift", "fixed_point", "is_power_of_two", "power_of_two"]

LARGEST_SHIFT: Final = 62


def is_power_of_two(factor: float) -> bool:
    """Whether a positive number is exactly 2^n for a whole n."""
    return math.frexp(factor)[0] == 0.5


def fixed_point(factors: Sequence[float], bits: int) -> tuple[I64, I64]:
    """A multiplier and a shift of its own for every factor.

    Args:
        factors: > 0 and below 2^bits.
        bits: Width of the multipliers; the highest bit is set unless a factor is below
            2^(bits - 62), so that a multiplier is within 2^-bits of its factor, relatively.

    Returns:
        Multipliers and shifts, [len(factors)] each.

    Raises:
        ValueError: If a factor is not positive, or too large.
    """
    pairs = [_fixed_point(float(factor), bits) for factor in factors]
    multipliers, shifts = zip(*pairs, strict=True)
    return np.array(multipliers, np.int64), np.array(shifts, np.int64)


def _fixed_point(factor: float, bits: int) -> tuple[int, int]:
    """Multiplier and shift of one factor."""
    shift = min(_shift_for(factor, bits), LARGEST_SHIFT)
    return _times(factor, shift), shift


def _shift_for(factor: float, bits: int) -> int:
    """The largest shift whose multiplier still has `bits` bits."""
    if not (factor > 0 and math.isfinite(factor)):
        raise ValueError(f"{factor} is no factor")
    shift = bits - math.frexp(factor)[1]
    if _times(factor, shift) >= 2**bits:
        shift -= 1
    if shift < 0:
        raise ValueError(f"{factor} does not fit a multiplier of {bits} bits")
    return shift


def _times(factor: float, shift: int) -> int:
    """The factor times 2^shift, rounded half to even; exact, since only the exponent changes."""
    return round(math.ldexp(factor, shift))


def common_shift(factors: Sequence[float], bits: int) -> tuple[I64, int]:
    """Multipliers over one shift, as a sum of products needs them.

    Args:
        factors: > 0 and below 2^bits.
        bits: Width of the multipliers; the largest factor has its highest bit set.

    Returns:
        Multipliers [len(factors)], and the shift.

    Raises:
        ValueError: If a factor is not positive, or too large.
    """
    shift = min(*(_shift_for(float(factor), bits) for factor in factors), LARGEST_SHIFT)
    return np.array([_times(float(factor), shift) for factor in factors], np.int64), shift


def power_of_two(factors: Sequence[float]) -> tuple[I64, I64]:
    """Shifts alone, for factors that are powers of two.

    Returns:
        Multipliers and shifts, [len(factors)] each. The multiplier is 1; where the factor is above
        1 it is the factor and the shift 0; where even a shift of 62 leaves too much it is 0.

    Raises:
        ValueError: If a factor is no power of two.
    """
    wrong = [factor for factor in factors if not is_power_of_two(float(factor))]
    if wrong:
        raise ValueError(f"{wrong[0]} is no power of two")
    exponents = np.array([math.frexp(float(factor))[1] - 1 for factor in factors], np.int64)
    multipliers = np.where(exponents > 0, np.int64(1) << np.clip(exponents, 0, 61), 1)
    too_small = exponents < -LARGEST_SHIFT
    shifts = np.clip(-exponents, 0, LARGEST_SHIFT)
    return np.where(too_small, 0, multipliers), shifts

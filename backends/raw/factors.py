"""Real factors between grids as the program's multipliers and shifts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.backends.raw.draft import NotInteger
from qconvert.integer.multiplier import (
    common_shift,
    fixed_point,
    is_power_of_two,
    power_of_two,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qconvert.backends.raw.draft import Draft
    from qconvert.integer.rounding import I64

__all__ = ["each_factor", "summed_factors"]


def each_factor(draft: Draft, ratios: Sequence[float]) -> tuple[I64, I64]:
    """A multiplier and a shift for each ratio.

    Raises:
        NotInteger: If a ratio does not fit the multipliers.
    """
    try:
        if draft.power_of_two and all(is_power_of_two(ratio) for ratio in ratios):
            return power_of_two(ratios)
        return fixed_point(ratios, draft.options.multiplier_bits)
    except ValueError as error:
        raise NotInteger(str(error)) from error


def summed_factors(draft: Draft, ratios: Sequence[float]) -> tuple[I64, int]:
    """Multipliers over one shift.

    Raises:
        NotInteger: If a ratio does not fit the multipliers.
    """
    if draft.power_of_two and all(is_power_of_two(ratio) for ratio in ratios):
        exponents = [int(np.frexp(ratio)[1]) - 1 for ratio in ratios]
        shift = max(0, *(-exponent for exponent in exponents))
        if max(exponents) + shift < draft.options.multiplier_bits and shift <= 62:
            return np.array([1 << (exponent + shift) for exponent in exponents]), shift
    try:
        return common_shift(ratios, draft.options.multiplier_bits)
    except ValueError as error:
        raise NotInteger(str(error)) from error

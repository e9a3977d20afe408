"""RS(p, s): divide by 2^s and round, as hardware does it. Exact on int64.

    half_up          floor((p + 2^(s-1)) / 2^s)                 one adder and a wire
    half_even        to nearest, ties to the even neighbour     IEEE 754, ONNX
    half_away        to nearest, ties away from zero            C's round(), ncnn
    tflite_double    rounds twice: a doubling high product, half up but -1/2 to 0 for negative
                     numbers, then a shift, half away from zero

`tflite_double` is about a product of one sum and one multiplier. For a plain shift of something
that is multiplied already (`shift_right`) only its second step is there: half away from zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from qconvert.integer.program import Rounding

__all__ = ["I64", "rescale", "shift_right"]

I64: TypeAlias = npt.NDArray[np.int64]

_LOW: Final = 31
"""Bits of a wide product that are kept apart from the rest."""
_MASK: Final = (1 << _LOW) - 1
_SATURATED: Final = 1 << 61


def shift_right(product: I64, shift: I64 | int, rounding: Rounding) -> I64:
    """RS(product, shift).

    Args:
        product: Any shape, |p| < 2^62.
        shift: 0..62, broadcast against `product`.
        rounding: The rule for what is cut off.
    """
    places = np.asarray(shift, dtype=np.int64)
    half = np.where(places > 0, np.int64(1) << np.maximum(places - 1, 0), 0)
    if rounding == "half_up":
        return np.asarray((product + half) >> places)
    if rounding == "half_even":
        up = product + half
        tie = (places > 0) & ((up & ((np.int64(1) << places) - 1)) == 0)
        result = up >> places
        return np.asarray(np.where(tie, result & ~np.int64(1), result))
    return np.asarray(np.sign(product) * ((np.abs(product) + half) >> places))


def rescale(sums: I64, multiplier: I64, shift: I64, rounding: Rounding, *, bits: int = 32) -> I64:
    """RS(sums * multiplier, shift).

    Args:
        sums: Any shape.
        multiplier: 0..2^31 - 1, broadcast against `sums`.
        shift: 0..62, broadcast against `sums`.
        rounding: The rule; `tflite_double` knows sums of 32 bits only.
        bits: Width that holds every sum, two's complement, up to 62.

    Returns:
        Exact for every sum of up to 32 bits; of wider ones, results beyond +-2^61 stop there.

    Reference:
        gemmlowp fixedpoint/fixedpoint.h, SaturatingRoundingDoublingHighMul and
        RoundingDivideByPOT; TensorFlow Lite, MultiplyByQuantizedMultiplier.
    """
    if rounding == "tflite_double":
        return _double(sums, multiplier, shift)
    if bits <= 32:
        return shift_right(sums * multiplier, shift, rounding)
    if rounding == "half_away":
        return np.asarray(np.sign(sums) * _wide(np.abs(sums), multiplier, shift, rounding))
    return _wide(sums, multiplier, shift, rounding)


def _double(sums: I64, multiplier: I64, shift: I64) -> I64:
    """TensorFlow Lite's two roundings; sums saturate at 32 bits where they are shifted up first."""
    left, right = np.maximum(31 - shift, 0), np.maximum(shift - 31, 0)
    raised = np.clip(sums << left, -(2**31), 2**31 - 1)
    product = raised * multiplier
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    # C's division cuts toward zero, a shift would cut downward.
    high = np.sign(nudged) * (np.abs(nudged) >> 31)
    return shift_right(high, right, "half_away")


def _wide(sums: I64, multiplier: I64, shift: I64, rounding: Rounding) -> I64:
    """RS of a product of more than 63 bits, held as high * 2^31 + low, 0 <= low < 2^31.

    `half_away` is for sums >= 0 here, where it is half up.
    """
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    below = (sums & _MASK) * multiplier + half
    high, low = (sums >> _LOW) * multiplier + (below >> _LOW), below & _MASK
    down, up = np.maximum(shift - _LOW, 0), np.maximum(_LOW - shift, 0)
    bound = np.int64(_SATURATED) >> up
    result = (np.clip(high, -bound, bound) >> down << up) + np.where(
        shift < _LOW, low >> np.minimum(shift, _LOW), 0
    )
    if rounding != "half_even":
        return np.asarray(result)
    cut_high = high & ((np.int64(1) << down) - 1)
    cut_low = low & ((np.int64(1) << np.minimum(shift, _LOW)) - 1)
    tie = (shift > 0) & (cut_high == 0) & (cut_low == 0)
    return np.asarray(np.where(tie, result & ~np.int64(1), result))

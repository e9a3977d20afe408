"""Scale and codes in turn: each step solves for one of them exactly, given the other.

Codes for a scale are the nearest ones; the best scale for codes q is `x.q / q.q`. Neither step
can raise the squared error |x - scale * q|^2, so the pair settles, in a hollow that depends on
where it began. It begins twice, at the whole range and at 1/2.5 of it, and the better end counts.

Reference:
    C. Leng et al., "Extremely low bit neural network: squeeze the last bit out with ADMM", AAAI
    2018, arXiv:1707.09870; alibaba/MNN tools/quantization/TensorStatistic.cpp,
    `computeScaleADMM` (which starts at 1/2.5) and quantizeWeight.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.calibration.methods.loss import row_loss, row_magnitudes
from qconvert.quant import asymmetric, code_range, symmetric

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.calibration.methods.loss import Points
    from qconvert.quant import F32

    F64 = npt.NDArray[np.float64]

__all__ = ["limits", "row_thresholds", "threshold"]

_STARTS: Final = (1.0, 1.0 / 2.5)
_STEPS: Final = 300
_ROW_STEPS: Final = 50
_SETTLED: Final = 1e-7


def threshold(points: Points, top: float, bits: int) -> float:
    """The threshold of symmetric codes.

    Args:
        points: The distribution.
        top: Largest magnitude, > 0.
        bits: Width of the codes.

    Returns:
        Above 0; rarely a little above `top`.
    """
    last = code_range(bits)[1]
    ends = []
    for start in _STARTS:
        scale = start * top / last
        for _ in range(_STEPS):
            codes = np.clip(np.rint(points.values / scale), -last, last)
            weighted = codes * points.weights
            power = float(weighted @ codes)
            if power == 0.0:
                break
            before, scale = scale, float(weighted @ points.values) / power
            if abs(scale - before) <= _SETTLED * before:
                break
        ends.append(scale * last)
    return min(ends, key=lambda end: points.loss(symmetric(end, bits=bits)))


def limits(
    points: Points, seen: tuple[float, float], bits: int, *, signed: bool
) -> tuple[float, float]:
    """The range of codes with a zero point: scale and offset together, by least squares.

    Args:
        points: The distribution.
        seen: Smallest and largest value, 0 between them or at an end, not both 0.
        bits: Width of the codes.
        signed: Whether codes go below 0.

    Returns:
        Smallest and largest value to represent.
    """
    steps = 2**bits - 1
    ends = []
    for start in _STARTS:
        low, high = seen[0] * start, seen[1] * start
        for _ in range(_STEPS):
            fitted = _fit(points, low, (high - low) / steps, steps)
            if fitted is None:
                break
            settled = abs(fitted[0] - low) + abs(fitted[1] - high) <= _SETTLED * (high - low)
            low, high = fitted
            if settled:
                break
        ends.append((min(low, 0.0), max(high, 0.0)))
    return min(ends, key=lambda end: points.loss(asymmetric(*end, bits=bits, signed=signed)))


def _fit(points: Points, low: float, scale: float, steps: int) -> tuple[float, float] | None:
    """The range whose codes fit best in the codes of the present one; None when all are equal."""
    # 0 keeps a code of its own, so the offset moves in whole steps.
    offset = round(low / scale)
    codes = np.clip(np.rint(points.values / scale) - offset, 0, steps)
    mean_code, mean_value = float(points.weights @ codes), float(points.weights @ points.values)
    centred = (codes - mean_code) * points.weights
    power = float(centred @ codes)
    if power <= 0.0:
        return None
    scale = float(centred @ points.values) / power
    if scale <= 0.0:
        return None
    start = mean_value - scale * mean_code
    return start, start + scale * steps


def row_thresholds(rows: F32, bits: int) -> F64:
    """The threshold of each row, symmetric codes.

    Args:
        rows: float32 [rows, n].
        bits: Width of the codes.

    Returns:
        float64 [rows], >= 0.
    """
    last = code_range(bits)[1]
    top = row_magnitudes(rows)
    best, best_loss = top, row_loss(rows, top, bits)
    for start in _STARTS:
        scales = np.where(top > 0, start * top / last, 1.0)
        for _ in range(_ROW_STEPS):
            codes = np.clip(np.rint(rows / scales[:, None].astype(np.float32)), -last, last)
            power = np.einsum("ij,ij->i", codes, codes, dtype=np.float64)
            product = np.einsum("ij,ij->i", codes, rows, dtype=np.float64)
            solved = np.where(power > 0, product / np.maximum(power, 1.0), scales)
            settled = np.abs(solved - scales) <= _SETTLED * scales
            scales = solved
            if settled.all():
                break
        ends = np.where(top > 0, scales * last, 0.0)
        loss = row_loss(rows, ends, bits)
        best = np.where(loss < best_loss, ends, best)
        best_loss = np.minimum(loss, best_loss)
    return best

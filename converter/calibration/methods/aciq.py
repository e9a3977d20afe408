"""Analytical clipping: the threshold that is best for a distribution of known shape.

For values with density f and scale 1, clipping at a to 2^bits levels costs
`2 * integral_a^inf (x - a)^2 f(x) dx + a^2 / (3 * 4^bits)`. The best a does not depend on data,
so only the distribution's scale is measured: sigma for the normal, the mean deviation b for
Laplace's. Codes around 0 take both about 0, codes with a zero point about the mean.

Reference:
    R. Banner, Y. Nahshan, D. Soudry, "Post training 4-bit quantization of convolutional networks
    for rapid-deployment", NeurIPS 2019, arXiv:1810.05723; Tencent/ncnn
    tools/quantize/ncnn2table.cpp, `compute_aciq_gaussian_clip`.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from qconvert.calibration.methods.loss import row_loss, row_magnitudes

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.calibration.settings import AciqPrior
    from qconvert.quant import F32

    F64 = npt.NDArray[np.float64]

__all__ = ["alpha", "row_thresholds", "sigma_from_range"]

_RANGE_TO_SIGMA: Final = 0.5 * 0.35 * (1.0 + math.sqrt(math.pi * math.log(4.0)))


@functools.cache
def alpha(bits: int, prior: Literal["gauss", "laplace"]) -> float:
    """The best threshold in units of the distribution's scale.

    Args:
        bits: Width of the codes, 1 to 17.
        prior: The shape.

    Returns:
        Above 0; 3.924 for the normal distribution and 9.897 for Laplace's at 8 bits.
    """

    def slope(a: float) -> float:
        if prior == "gauss":
            density = math.exp(-a * a / 2.0) / math.sqrt(2.0 * math.pi)
            cut = density - a * 0.5 * math.erfc(a / math.sqrt(2.0))
        else:
            cut = 0.5 * math.exp(-a)
        return a / (6.0 * 4.0**bits) - cut

    low, high = 0.0, 64.0
    for _ in range(80):
        middle = (low + high) / 2.0
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return (low + high) / 2.0


def sigma_from_range(magnitude: float, count: int) -> float:
    """Standard deviation of a normal sample, guessed from its largest magnitude alone.

    Args:
        magnitude: Largest magnitude, >= 0.
        count: Size of the sample.

    Returns:
        As ncnn2table has it; `magnitude` for samples too small to say anything.
    """
    if count < 3:
        return magnitude
    return 2.0 * magnitude * _RANGE_TO_SIGMA / math.sqrt(2.0 * math.log(count))


def row_thresholds(rows: F32, bits: int, prior: AciqPrior) -> F64:
    """A threshold for each row, symmetric codes.

    Args:
        rows: float32 [rows, n].
        bits: Width of the codes.
        prior: The shape; `auto` takes whichever loses least on the row itself, or clips nothing.

    Returns:
        float64 [rows], >= 0, at most the row's largest magnitude (but for `ncnn`).
    """
    top = row_magnitudes(rows)
    if prior == "ncnn":
        sigma = np.array([sigma_from_range(each, rows.shape[1]) for each in top])
        return np.asarray(alpha(bits, "gauss") * sigma, dtype=np.float64)
    sigma = np.sqrt(np.mean(np.square(rows, dtype=np.float64), axis=1))
    gauss = np.minimum(alpha(bits, "gauss") * sigma, top)
    laplace = np.minimum(alpha(bits, "laplace") * np.mean(np.abs(rows), axis=1), top)
    if prior == "auto":
        candidates = np.stack([top, gauss, laplace])
        losses = np.stack([row_loss(rows, each, bits) for each in candidates])
        return np.asarray(candidates[losses.argmin(axis=0), np.arange(len(top))], np.float64)
    return np.asarray(gauss if prior == "gauss" else laplace, dtype=np.float64)

"""Scales of weights whose codes are exponents: the least squared error.

The grid of such codes is the same an octave further up or down, but for its ends. So candidates
are spaced evenly in ratio: the top magnitude from an eighth of the largest weight (where few codes
clip with profit) to a third beyond it (up to there the largest weight is nearest to the top).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.calibration.methods.loss import row_magnitudes, rows_error
from qconvert.quant import log2

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.quant import F32

__all__ = ["row_thresholds"]

_COARSE: Final = np.geomspace(1.0 / 8.0, 4.0 / 3.0, 28)
_RATIO: Final = float(_COARSE[1] / _COARSE[0])
_FINE: Final = np.geomspace(_RATIO**-0.75, _RATIO**0.75, 6)
_SAMPLE: Final = 4096
"""Weights of a row that are looked at: more of them move the best scale by next to nothing."""


def row_thresholds(rows: F32, bits: int) -> npt.NDArray[np.float64]:
    """The best largest magnitude of each row.

    Args:
        rows: float32 [rows, n].
        bits: Width of the codes, 2 to 6.

    Returns:
        float64 [rows], >= 0; 0 for rows of zeros.
    """
    top = row_magnitudes(rows)
    sample = rows[:, :: max(1, rows.shape[1] // _SAMPLE)]
    best, least = top.copy(), rows_error(sample, log2(top, bits=bits, axis=0))
    for factors in (_COARSE, _FINE):
        centre = top if factors is _COARSE else best.copy()
        for factor in factors:
            candidate = centre * factor
            error = rows_error(sample, log2(candidate, bits=bits, axis=0))
            better = error < least
            best[better], least[better] = candidate[better], error[better]
    return best

"""The range with the smallest mean squared error of rounding and clipping.

Candidates are spaced evenly in ratio from 1/64 of the range to all of it; then the gap on either
side of the best is searched finely.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.calibration.methods.loss import row_loss, row_magnitudes
from qconvert.quant import asymmetric, symmetric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from qconvert.calibration.methods.loss import Points
    from qconvert.quant import F32

    F64 = npt.NDArray[np.float64]

__all__ = ["limits", "row_thresholds", "threshold"]

_COARSE: Final = np.geomspace(1.0 / 64.0, 1.0, 64)
_RATIO: Final = float(_COARSE[1] / _COARSE[0])
_FINE: Final = np.geomspace(1.0 / _RATIO, _RATIO, 17)
_GRID: Final = tuple(np.geomspace(1.0, 1.0 / 64.0, 24).tolist())
_GRID_RATIO: Final = _GRID[0] / _GRID[1]
_ROW_COARSE: Final = np.linspace(0.2, 1.0, 25)
_ROW_FINE: Final = np.linspace(-0.03, 0.03, 7)


def threshold(points: Points, top: float, bits: int) -> float:
    """The best threshold of symmetric codes.

    Args:
        points: The distribution.
        top: Largest magnitude, > 0.
        bits: Width of the codes.

    Returns:
        In (0, top].
    """
    return top * _best(lambda share: points.loss(symmetric(share * top, bits=bits)))


def limits(
    points: Points, seen: tuple[float, float], bits: int, *, signed: bool
) -> tuple[float, float]:
    """The best range of codes with a zero point.

    Args:
        points: The distribution.
        seen: Smallest and largest value, 0 between them or at an end, not both 0.
        bits: Width of the codes.
        signed: Whether codes go below 0.

    Returns:
        Smallest and largest value to represent, within `seen`.
    """

    def loss(shares: tuple[float, float]) -> float:
        ends = shares[0] * seen[0], shares[1] * seen[1]
        return points.loss(asymmetric(*ends, bits=bits, signed=signed))

    def best(lows: Sequence[float], highs: Sequence[float]) -> tuple[float, float]:
        # An end at 0 stays there: its share does not matter.
        return min(
            itertools.product(lows if seen[0] < 0 else (1.0,), highs if seen[1] > 0 else (1.0,)),
            key=loss,
        )

    # The two ends share one step size, so they are tried together, not in turn.
    low, high = best(_GRID, _GRID)
    ratio = _GRID_RATIO
    for _ in range(3):
        ratio **= 0.4
        around = [ratio**power for power in (0, 1, -1, 2, -2)]
        low, high = best(
            [min(low * step, 1.0) for step in around], [min(high * step, 1.0) for step in around]
        )
    return low * seen[0], high * seen[1]


def row_thresholds(rows: F32, bits: int) -> F64:
    """The best threshold of each row, symmetric codes.

    Args:
        rows: float32 [rows, n].
        bits: Width of the codes.

    Returns:
        float64 [rows], >= 0.
    """
    top = row_magnitudes(rows)
    best_share = np.ones_like(top)
    best_loss = row_loss(rows, top, bits)
    for shares in (_ROW_COARSE[:-1], _ROW_FINE):
        centre = best_share if shares is _ROW_FINE else np.zeros_like(top)
        for offset in shares:
            share = np.minimum(centre + offset, 1.0)
            loss = row_loss(rows, top * share, bits)
            better = loss < best_loss
            best_loss[better] = loss[better]
            best_share[better] = share[better]
    return top * best_share


def _best(loss: Callable[[float], float]) -> float:
    """The share in (0, 1] with the smallest loss; the largest of equals."""
    coarse = min(_COARSE[::-1], key=loss)
    fine = [min(coarse * ratio, 1.0) for ratio in _FINE[::-1]]
    return float(min([coarse, *fine], key=loss))

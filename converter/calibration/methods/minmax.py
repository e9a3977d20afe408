"""The whole range: nothing is clipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.quant import F32

__all__ = ["row_thresholds"]


def row_thresholds(rows: F32) -> npt.NDArray[np.float64]:
    """Largest magnitude of each row.

    Args:
        rows: float32 [rows, n].

    Returns:
        float64 [rows], >= 0.
    """
    return np.asarray(np.abs(rows).max(axis=1, initial=0.0), dtype=np.float64)

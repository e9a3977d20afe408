"""Rounding weights for the least output error instead of to the nearest code.

For one output row with weight w, codes c at scale s, and second moments H = X X' of its input,

    |w X - s c X|^2 = (w - s c) H (w - s c)'

Codes are fixed one after the other; the error each leaves is spread over the weights that are
still free, along H (Frantar et al. 2022, arXiv:2210.17323; Hassibi et al. 1993). H comes from a
sample, so its diagonal is raised (damping): rounding then does not chase what only the sample
shows. A code stays within 1 of the nearest, and a row keeps its nearest codes where that is no
improvement on the sample itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.quant import F32

    F64 = npt.NDArray[np.float64]

__all__ = ["DAMPING", "round_rows"]

DAMPING: Final = 0.5
"""What is added to the diagonal of H, relative to its mean."""


def round_rows(weight: F32, scales: F32, moments: F32, top: int, damping: float = DAMPING) -> F32:
    """Choose codes for the rows of one group.

    Args:
        weight: [O, K].
        scales: [O], > 0.
        moments: H, [K, K], symmetric, positive semidefinite.
        top: Largest code.
        damping: > 0; large values give nearest rounding.

    Returns:
        Codes [O, K] as float32, within `-top..top`, within 1 of the nearest code.
    """
    rows, step = weight.astype(np.float64), scales.astype(np.float64)[:, None]
    nearest = np.clip(np.rint(rows / step), -top, top)
    second = moments.astype(np.float64)
    mean = float(np.trace(second)) / len(second)
    if not mean > 0:
        return nearest.astype(np.float32)
    raised = second + damping * mean * np.eye(len(second))
    # Rows of the upper Cholesky factor of the inverse say how an error spreads to later weights.
    spread = np.linalg.cholesky(np.linalg.inv(raised)).T
    free, codes = rows.copy(), np.empty_like(rows)
    for k in range(rows.shape[1]):
        wanted = np.rint(free[:, k : k + 1] / step)[:, 0]
        codes[:, k] = np.clip(wanted, nearest[:, k] - 1, nearest[:, k] + 1).clip(-top, top)
        error = (free[:, k] - codes[:, k] * step[:, 0]) / spread[k, k]
        free[:, k + 1 :] -= error[:, None] * spread[k, k + 1 :]
    better = _error(rows - codes * step, second) < _error(rows - nearest * step, second)
    return np.where(better[:, None], codes, nearest).astype(np.float32)


def _error(rows: F64, moments: F64) -> F64:
    """Squared output error per row."""
    return np.asarray(np.einsum("ok,ok->o", rows @ moments, rows))

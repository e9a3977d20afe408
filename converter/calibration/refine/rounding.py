"""Rounding weights for the least output error instead of to the nearest code.

For one output row with weight w, codes c at scale s, and second moments H = X X' of its input,

    |w X - s c X|^2 = (w - s c) H (w - s c)'

Codes are fixed one after the other; the error each leaves is spread over the weights that are
still free, along H (Frantar et al. 2022, arXiv:2210.17323; Hassibi et al. 1993). H comes from a
sample, so its diagonal is raised (damping): rounding then does not chase what only the sample
shows. By how much is found by cross-validation, as in `refit`: codes that were chosen without a
part of the samples must pay on that part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from qconvert.quant import F32

    F64 = npt.NDArray[np.float64]

__all__ = ["DAMPINGS", "round_held_out", "round_rows"]

DAMPINGS: Final = (0.03, 0.3)
"""Candidates for what is added to the diagonal of H, relative to its mean."""

_DEEP: Final = 1024
"""Inputs per output beyond which one damping is tried: each costs an inverse."""

_BLOCK: Final = 64  # columns whose errors reach later ones in one product


def round_held_out(weight: F32, scales: F32, folds: Sequence[F64], top: int) -> F32 | None:
    """Choose codes, damped so that it pays on samples they were not chosen on.

    Args:
        weight: [G, O, K].
        scales: [G, O], > 0.
        folds: H of the parts of the samples, two or more, [G, K, K].
        top: Largest code.

    Returns:
        Codes as of `round_rows` for all samples; None where the nearest codes are better.
    """
    near = _nearest(weight, scales, top)
    total = np.sum(folds, axis=0)
    least, best = _error(weight, scales, near, total).sum(), None
    deep = weight.shape[2] > _DEEP
    for damping in DAMPINGS[1:] if deep else DAMPINGS:
        error = 0.0
        for part in folds:
            codes = round_rows(weight, scales, total - part, top, damping)
            error += _error(weight, scales, codes, part).sum()
        if error < least:
            least, best = error, damping
    return None if best is None else round_rows(weight, scales, total, top, best)


def round_rows(weight: F32, scales: F32, moments: F64, top: int, damping: float) -> F32:
    """Choose codes for the rows of all groups.

    A code stays within 1 of the nearest, and a row keeps its nearest codes where others are no
    improvement by `moments`.

    Args:
        weight: [G, O, K].
        scales: [G, O], > 0.
        moments: H, [G, K, K], symmetric, positive semidefinite.
        top: Largest code.
        damping: > 0; large values give nearest rounding.

    Returns:
        Codes [G, O, K] as float32, within `-top..top`, within 1 of the nearest code.
    """
    nearest = _nearest(weight, scales, top)
    # Inputs first: what one step reads and writes lies together.
    free, near = (np.ascontiguousarray(np.moveaxis(a, 2, 0), np.float64) for a in (weight, nearest))
    spread, step = _spread(moments, damping), scales.astype(np.float64)
    along = np.ascontiguousarray(np.moveaxis(spread, 0, 2))  # [K, K, G]
    chosen, errors = np.empty_like(free), np.empty_like(free)
    for start in range(0, len(free), _BLOCK):
        stop = min(start + _BLOCK, len(free))
        for k in range(start, stop):
            codes = np.clip(np.rint(free[k] / step), near[k] - 1, near[k] + 1)
            chosen[k] = codes.clip(-top, top)
            errors[k] = (free[k] - chosen[k] * step) / along[k, k, :, None]
            free[k + 1 : stop] -= along[k, k + 1 : stop, :, None] * errors[k]
        block = np.moveaxis(errors[start:stop], 0, 1)
        free[stop:] -= np.moveaxis(spread[:, start:stop, stop:].mT @ block, 1, 0)
    codes = np.moveaxis(chosen, 0, 2)
    before, after = (_error(weight, scales, each, moments) for each in (nearest, codes))
    return np.where((after < before)[:, :, None], codes, nearest).astype(np.float32)


def _spread(moments: F64, damping: float) -> F64:
    """How the error of one weight spreads to later ones: rows of the inverse's Cholesky factor."""
    depth = moments.shape[1]
    mean = np.trace(moments, axis1=1, axis2=2) / depth
    level = np.where(mean > 0, damping * mean, 1.0)
    raised = moments + level[:, None, None] * np.eye(depth)
    return np.asarray(np.linalg.cholesky(np.linalg.inv(raised)).transpose(0, 2, 1))


def _nearest(weight: F32, scales: F32, top: int) -> F64:
    """The nearest codes, [G, O, K]."""
    ratio = weight / scales.astype(np.float64)[:, :, None]
    return np.asarray(np.clip(np.rint(ratio), -top, top))


def _error(weight: F32, scales: F32, codes: npt.NDArray[np.floating], moments: F64) -> F64:
    """Squared output error per row, [G, O]."""
    rows = weight - codes * scales.astype(np.float64)[:, :, None]
    return np.asarray(np.einsum("gok,gok->go", np.matmul(rows, moments), rows))

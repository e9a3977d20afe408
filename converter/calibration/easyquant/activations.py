"""The scale of an activation, from coarse to fine, for all layers that read it together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.calibration.easyquant.fake import resized
from qconvert.calibration.powers import around

if TYPE_CHECKING:
    from collections.abc import Callable

    from qconvert.quant import QParams

__all__ = ["refine", "refine_powers"]

_SPANS: Final = ((2.0, 13), (1.12, 7), (1.03, 7))
"""Per stage: how far from the centre candidates reach, as a factor, and how many there are."""

_WIDENINGS: Final = 3  # how often the first stage moves on when its best candidate is its last


def refine(
    params: QParams, score: Callable[[QParams], float], best: float, *, stages: int = len(_SPANS)
) -> tuple[QParams, float, int]:
    """Move the ends of a range to where `score` is largest.

    Symmetric parameters have one end to move, asymmetric ones two: each stage moves both together,
    then one, then the other.

    Args:
        params: Where to start.
        score: What to maximize.
        best: `score(params)`.
        stages: How many stages to go through, from coarse to fine.

    Returns:
        The best parameters, their score, and how many candidates were tried.
    """
    tried = 0
    for stage, (span, count) in enumerate(_SPANS[:stages]):
        for low, high in _directions(params):
            for _ in range(_WIDENINGS if stage == 0 else 1):
                factors = np.geomspace(1 / span, span, count)
                centre, edge = params, False
                for index, factor in enumerate(factors):
                    if factor == 1.0:
                        continue
                    candidate = resized(centre, factor if low else 1.0, factor if high else 1.0)
                    value = score(candidate)
                    tried += 1
                    if value > best:
                        params, best, edge = candidate, value, index in {0, count - 1}
                if not edge:
                    break
    return params, best, tried


def refine_powers(
    params: QParams, score: Callable[[QParams], float], best: float, *, stages: int = len(_SPANS)
) -> tuple[QParams, float, int]:
    """The same where the scale stays a power of two: one step up or down while that pays.

    See `refine` for arguments and result; `stages` bounds the steps.
    """
    tried = 0
    for _ in range(stages):
        centre = params
        scales = [np.asarray(centre.scale * np.float32(step)) for step in (0.5, 1, 2)]
        for candidate in around(centre, scales):
            value = score(candidate)
            tried += 1
            if value > best:
                params, best = candidate, value
        if params is centre:
            break
    return params, best, tried


def _directions(params: QParams) -> tuple[tuple[bool, bool], ...]:
    """Which ends move together: (low, high)."""
    if params.symmetric:
        return ((False, True),)
    below = int(params.zero_point) > params.low
    above = int(params.zero_point) < params.high
    return ((True, True), (True, False), (False, True)) if below and above else ((True, True),)

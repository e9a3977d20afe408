"""How much work a search does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.calibration.settings import Effort, Settings

__all__ = ["EFFORTS", "Budget", "budget"]


@dataclass(frozen=True, slots=True)
class Budget:
    """What one level of effort allows.

    Attributes:
        positions: Sampled output positions per layer, over all samples together.
        rounds: Rounds over weight and activation scales, at most.
        candidates: Weight scale candidates per round.
        stages: Stages of the activation scale, from coarse to fine.
        tolerance: A round that gains less cosine is the last one.
        fitted: Output positions that weights are fitted and rounded by, over all samples together.
        refit: Whether weights and biases are fitted again to their rounded input.
        rounding: Whether codes are chosen by output error.
        correction: Whether biases are corrected.
    """

    positions: int
    rounds: int
    candidates: int
    stages: int
    tolerance: float = 1e-6
    fitted: int = 16384
    refit: bool = True
    rounding: bool = True
    correction: bool = False


def budget(settings: Settings) -> Budget:
    """What `settings` allow: their level of effort, and what they name beyond it.

    The paper knows scales alone: beyond them its search does only what is named.
    """
    level = EFFORTS[settings.effort]
    if settings.eq_mode == "paper":
        level = replace(level, refit=False, rounding=False)
    return replace(
        level,
        rounds=level.rounds if settings.eq_rounds is None else settings.eq_rounds,
        refit=level.refit if settings.refit is None else settings.refit,
        rounding=level.rounding if settings.rounding is None else settings.rounding == "optimal",
        correction=level.correction or settings.bias_correction,
    )


# Biases corrected for the mean shift alone are left to be asked for: on unseen photos, 6 bits, they
# take SqueezeNet further from float (bench/accuracy.py).
EFFORTS: Final[Mapping[Effort, Budget]] = {
    "fast": Budget(2048, rounds=1, candidates=40, stages=2, refit=False, rounding=False),
    "default": Budget(4096, rounds=2, candidates=100, stages=3),
    "best": Budget(16384, rounds=4, candidates=160, stages=3, fitted=32768),
}

"""How long one inference takes here: the artifact and its float model, taken in turns.

Never part of a bundle: another machine has other figures.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.quant import F32

__all__ = ["Speed", "Timed", "race"]

_ROUNDS: Final = 21
_SECONDS: Final = 1.0


@runtime_checkable
class Timed(Protocol):
    """A runtime that a board runs too, and that times itself without the way to its process."""

    def latency(self, inputs: Mapping[str, F32]) -> float:
        """Seconds of one inference."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Median times of one inference on one thread.

    Attributes:
        rounds: How often each was run.
        model_ms: The artifact.
        float_ms: Its float model; None where the artifact is it.
    """

    rounds: int
    model_ms: float
    float_ms: float | None

    def to_json(self) -> dict[str, Any]:
        """The `latency_ms` object of `convert --json`."""
        return {"rounds": self.rounds, "model": self.model_ms, "float": self.float_ms}


def race(model: Timed, float_model: Timed | None, inputs: Mapping[str, F32]) -> Speed:
    """Run both in turns, for about a second, and take the medians."""
    ours: list[float] = []
    theirs: list[float] = []
    started = time.monotonic()
    while len(ours) < _ROUNDS and (not ours or time.monotonic() - started < _SECONDS):
        ours.append(model.latency(inputs))
        if float_model is not None:
            theirs.append(float_model.latency(inputs))
    return Speed(
        len(ours),
        1000 * statistics.median(ours),
        1000 * statistics.median(theirs) if theirs else None,
    )

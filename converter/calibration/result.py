"""What calibration hands on: encodings, and how each layer fared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qconvert.quant import Encodings

__all__ = ["Calibrated", "LayerResult"]


@dataclass(frozen=True, slots=True)
class LayerResult:
    """One layer's scales and how they were found.

    Attributes:
        name: The layer.
        threshold: The largest value its input can hold without clipping.
        input_scale: Scale of its input.
        weight_scale: Smallest and largest weight scale; None without a constant weight.
        cosine_before: Cosine of its output against float before the search; None without one.
        cosine_after: The same after the search.
        candidates: How many scales were tried.
        seconds: Time spent on it.
    """

    name: str
    threshold: float
    input_scale: float
    weight_scale: tuple[float, float] | None = None
    cosine_before: float | None = None
    cosine_after: float | None = None
    candidates: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The result of a calibration.

    Attributes:
        encodings: Scales for everything the plan names.
        layers: One row per planned layer, in topological order.
    """

    encodings: Encodings
    layers: tuple[LayerResult, ...]

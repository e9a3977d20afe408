"""How scales are to be found: one frozen record for every strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from qconvert.errors import UsageError

__all__ = ["AciqPrior", "Effort", "Method", "Settings"]

Method: TypeAlias = Literal[
    "minmax", "moving-average", "percentile", "kl", "mse", "aciq", "admm", "easyquant"
]
Effort: TypeAlias = Literal["fast", "default", "best"]
AciqPrior: TypeAlias = Literal["auto", "gauss", "laplace", "ncnn"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The user's choices for one calibration.

    Attributes:
        method: The strategy.
        seed: For everything that samples.
        threads: Threads of the network runtime; 0: one per core.
        effort: How long a search may take.
        percentile: For `percentile`: per cent of all values that are not clipped, 50 to 100.
        averaging: For `moving-average`: weight of each new sample, in (0, 1].
        aciq_prior: For `aciq`: the distribution values are taken to have; `auto` takes per
            tensor what loses least, clipping nothing included; `ncnn` does as ncnn2table does.
        eq_mode: For `easyquant`: `paper` does as the paper says, `gram` searches the same
            objective faster.
        eq_init: For `easyquant`: where the search starts; None: the best known choice.
        eq_rounds: For `easyquant`: rounds over weight and activation scales, at most.
        search_images: For `easyquant`: how many samples the search looks at.
        bias_correction: Whether biases are corrected for the mean error of rounding.
        refit: Whether weights and biases are fitted again to rounded inputs; None: as `effort` has
            it.
        rounding: `nearest`, or `optimal` to choose how each weight rounds; None: as `effort` has
            it.
    """

    method: Method = "easyquant"
    seed: int = 0
    threads: int = 0
    effort: Effort = "default"
    percentile: float = 99.99
    averaging: float = 0.1
    aciq_prior: AciqPrior = "auto"
    eq_mode: Literal["gram", "paper"] = "gram"
    eq_init: Literal["max", "kl"] | None = None
    eq_rounds: int | None = None
    search_images: int = 50
    bias_correction: bool = False
    refit: bool | None = None
    rounding: Literal["nearest", "optimal"] | None = None

    def __post_init__(self) -> None:
        checks = (
            (50 <= self.percentile <= 100, "--percentile is from 50 to 100"),
            (0 < self.averaging <= 1, "the averaging weight is above 0 and at most 1"),
            (self.search_images >= 1, "--search-images is at least 1"),
            (self.eq_rounds is None or self.eq_rounds >= 1, "--eq-rounds is at least 1"),
            (self.threads >= 0, "--jobs is not negative"),
        )
        for holds, rule in checks:
            if not holds:
                raise UsageError("a calibration setting is out of its range", why=rule)

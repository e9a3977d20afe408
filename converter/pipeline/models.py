"""The float and the quantized model of one conversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qconvert.calibration.run import calibrate
from qconvert.calibration.settings import Settings
from qconvert.errors import ModelFormatError
from qconvert.formats import encodings as encodings_file
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.order import optimize
from qconvert.passes.planning import plan
from qconvert.passes.read_qdq import has_qdq, split

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.calibration.run import Calibrated, LayerResult
    from qconvert.dataset.reader import Dataset
    from qconvert.plan import Plan, Policy
    from qconvert.progress import Progress
    from qconvert.quant import Encodings
    from qconvert.recipe import Recipe
    from qconvert.report import Report

__all__ = ["Models", "calibrated", "optimized", "quantized", "settings"]


@dataclass(frozen=True, slots=True)
class Models:
    """What one conversion works on.

    Attributes:
        source: As the frontend read it: the truth everything is measured against.
        float_model: Optimized, without any quantization.
        model: What the backend writes: `float_model` itself, or the Q/DQ model.
        search: What calibration did for each layer; empty when it did not run.
    """

    source: ir.Model
    float_model: ir.Model
    model: ir.Model
    search: tuple[LayerResult, ...] = ()

    @property
    def quantized(self) -> bool:
        """Whether the backend writes a quantized model."""
        return self.model is not self.float_model


def settings(recipe: Recipe) -> Settings:
    """What a recipe says to the calibration engine."""
    return Settings(
        method=recipe.method,
        effort=recipe.effort,
        eq_mode=recipe.eq_mode,
        eq_init=recipe.eq_init,
        eq_rounds=recipe.eq_rounds,
        percentile=recipe.percentile,
        search_images=recipe.search_images,
        seed=recipe.seed,
        threads=recipe.jobs,
    )


def optimized(source: ir.Model, report: Report) -> ir.Model:
    """A copy of `source` after all passes; weights that no pass touched are shared."""
    model = source.clone()
    optimize(model, report)
    return model

"""The float and the quantized model of one conversion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnx_ir.passes import common

from qconvert.calibration import imported
from qconvert.calibration.refine.ranges import channel_ranges
from qconvert.calibration.run import calibrate
from qconvert.calibration.settings import Settings
from qconvert.passes.adopt_qdq import adopt_qdq
from qconvert.passes.equalize import Equalize, watched
from qconvert.passes.fold_constants import FoldConstants
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.order import optimize
from qconvert.passes.planning import plan
from qconvert.passes.quantize_weights import quantize_weights
from qconvert.passes.read_qdq import has_qdq, without_qdq
from qconvert.passes.round_biases import round_biases
from qconvert.passes.separate_weights import separate_weights
from qconvert.quant import Encodings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.calibration.run import LayerResult
    from qconvert.dataset.reader import Dataset
    from qconvert.plan import Plan, Policy
    from qconvert.progress import Progress
    from qconvert.recipe import Recipe
    from qconvert.report import Report
    from qconvert.target import Backend

__all__ = [
    "Calibration",
    "Models",
    "equalize",
    "equalizes",
    "optimized",
    "planned",
    "prepared",
    "quantized",
    "settings",
]


@dataclass(frozen=True, slots=True)
class Models:
    """What one conversion works on.

    Attributes:
        source: As the frontend read it: the truth everything is measured against.
        float_model: Optimized, without any quantization.
        model: What the backend writes: `float_model` itself, or the Q/DQ model.
        search: What calibration did for each layer; empty when it did not run.
        adopted: Whether the Q/DQ nodes came with the source.
    """

    source: ir.Model
    float_model: ir.Model
    model: ir.Model
    search: Sequence[LayerResult] = ()
    adopted: bool = False

    @property
    def quantized(self) -> bool:
        """Whether the backend writes a quantized model."""
        return self.model is not self.float_model


@dataclass(frozen=True, slots=True)
class Calibration:
    """Where scales come from.

    Attributes:
        dataset: Images to find them with; None: nothing to find them with.
        encodings: A file that has them already.
    """

    dataset: Dataset | None = None
    encodings: Path | None = None


def settings(recipe: Recipe) -> Settings:
    """What a recipe says to the calibration engine."""
    return Settings(
        method=recipe.method,
        effort=recipe.effort,
        eq_mode=recipe.eq_mode,
        eq_init=recipe.eq_init,
        eq_rounds=recipe.eq_rounds,
        percentile=recipe.percentile,
        averaging=recipe.averaging,
        aciq_prior=recipe.aciq_prior,
        search_images=recipe.search_images,
        bias_correction=recipe.bias_correction,
        refit=recipe.refit,
        rounding=recipe.rounding,
        seed=recipe.seed,
        threads=recipe.jobs,
    )


def optimized(source: ir.Model, report: Report) -> Models:
    """Run all passes over a copy of `source`; weights that no pass touched are shared.

    A model that comes with Q/DQ nodes keeps its own scales; its float model is the one without
    them.
    """
    model = source.clone()
    optimize(model, report)
    adopted = has_qdq(model)
    return Models(source, without_qdq(model) if adopted else model, model, adopted=adopted)


def prepared(models: Models, backend: Backend, recipe: Recipe, report: Report) -> Models:
    """The models as a target wants to plan for them."""
    for model in {id(model): model for model in (models.float_model, models.model)}.values():
        expands = bool(model.functions)
        backend.prepare(model, recipe.options)
        if expands and not model.functions:  # what they computed from shapes alone is constant
            FoldConstants(report)(model)
            common.RemoveUnusedNodesPass()(model)
    return models


def quantized(
    models: Models,
    policy: Policy,
    recipe: Recipe,
    calibration: Calibration,
    report: Report,
    progress: Progress,
) -> Models:
    """Quantize the float model, where there are scales to be had.

    Raises:
        CalibrationError: If the data does not fit, or scales are missing.
    """
    model = models.float_model
    if models.quantized:
        if calibration.encodings is not None or calibration.dataset is not None:
            report.warn("the model brings its own scales: calibration data is used to verify only")
        return models if policy.free_placement else _adopted(models, policy, report)
    if calibration.dataset is None and calibration.encodings is None:
        return models
    if calibration.encodings is None and equalizes(recipe):
        assert calibration.dataset is not None
        equalize(model, calibration.dataset, recipe, report)
    layout = planned(model, policy, recipe, report)
    encodings = Encodings()
    search: Sequence[LayerResult] = ()
    if layout.layers and calibration.encodings is not None:
        encodings = imported.load(calibration.encodings, model, layout, settings(recipe), report)
    elif layout.layers:
        assert calibration.dataset is not None
        found = calibrate(model, layout, calibration.dataset, settings(recipe), report, progress)
        encodings, search = found.encodings, found.layers
    result = insert_qdq(model, layout, encodings)
    if not quantize_weights(result, policy, recipe.scheme, report) and not layout.layers:
        report.warn(f"no layer of this model can run as integers on {policy.target}")
        return models
    return replace(models, model=_settled(result, policy), search=search)


def _adopted(models: Models, policy: Policy, report: Report) -> Models:
    """A model that comes quantized, with its scales where the target has a place for them."""
    adopted = adopt_qdq(models.model, policy, report)
    if not has_qdq(adopted):
        report.warn(f"{policy.target} can run no layer of this model on integers as it comes")
        adopted = models.float_model
    return replace(models, model=_settled(adopted, policy), adopted=has_qdq(adopted))


def _settled(model: ir.Model, policy: Policy) -> ir.Model:
    """`model`, with biases as the integers they are where the whole network runs on integers."""
    if policy.integer_graph and policy.bias_int32:
        round_biases(model)
    return model


def planned(model: ir.Model, policy: Policy, recipe: Recipe, report: Report) -> Plan:
    """What of `model` is quantized; layers that share a weight but not its codes get copies.

    Raises:
        UsageError: If the target lacks what is asked for.
        UnsupportedError: Likewise, for a kind of codes.
    """
    separate_weights(model, recipe.scheme, report)
    return plan(model, policy, recipe.scheme, report)


def equalizes(recipe: Recipe) -> bool:
    """Whether a conversion evens out channel ranges before it looks for scales."""
    return recipe.method == "easyquant" if recipe.equalize is None else recipe.equalize


def equalize(model: ir.Model, dataset: Dataset, recipe: Recipe, report: Report) -> None:
    """Even out channel ranges in place; the network computes what it did.

    Scales found afterwards belong to the weights as they are now.
    """
    images = dataset.subset(list(range(min(len(dataset), recipe.search_images))))
    ranges = channel_ranges(model, watched(model), images, recipe.jobs)
    Equalize(report, ranges)(model)

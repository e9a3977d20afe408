"""Calibration: a float model, a plan and data in, encodings out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qconvert.calibration import activations, weights
from qconvert.calibration.easyquant.search import search
from qconvert.calibration.powers import snap_activations
from qconvert.calibration.result import Calibrated, LayerResult
from qconvert.errors import CalibrationError
from qconvert.quant import Encodings

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.calibration.settings import Settings
    from qconvert.dataset.reader import Dataset
    from qconvert.plan import Plan
    from qconvert.progress import Progress
    from qconvert.report import Report

__all__ = ["Calibrated", "LayerResult", "calibrate", "thresholds"]


def thresholds(
    model: ir.Model,
    plan: Plan,
    dataset: Dataset,
    settings: Settings,
    report: Report,
    progress: Progress,
) -> Encodings:
    """Find scales by a threshold strategy (any `settings.method` but `easyquant`).

    See `calibrate` for the arguments and errors.
    """
    if not len(dataset):
        raise CalibrationError("there are no calibration data", fix="give at least one sample")
    chosen = weights.find(model, plan, settings, report)
    found = activations.find(model, plan, dataset, settings, report, progress)
    if plan.power_of_two:
        found = snap_activations(model, plan, dataset, found, settings, progress)
    return Encodings(found, chosen)


def layer_rows(plan: Plan, encodings: Encodings) -> tuple[LayerResult, ...]:
    """One row per planned layer, from its encodings alone."""
    found = []
    for layer in plan.layers:
        params = encodings.activations[layer.input]
        spread = None
        if layer.weight is not None:
            scales = encodings.weights[layer.weight].scale
            spread = float(scales.min()), float(scales.max())
        found.append(
            LayerResult(
                layer.node,
                threshold=float(params.threshold),
                input_scale=float(params.scale),
                weight_scale=spread,
            )
        )
    return tuple(found)


def calibrate(
    model: ir.Model,
    plan: Plan,
    dataset: Dataset,
    settings: Settings,
    report: Report,
    progress: Progress,
) -> Calibrated:
    """Find scales for everything `plan` names.

    Args:
        model: The optimized float model; it is not changed.
        plan: What will be quantized, and how.
        dataset: Calibration data, at least one sample.
        settings: The strategy and its choices.
        report: Is told of dead channels and activations.
        progress: Shows passes over the data, and the search.

    Returns:
        Encodings for every activation and constant weight of the plan, and a row per layer.

    Raises:
        CalibrationError: If there are no data, or an activation is not finite.
        ModelFormatError: If a weight is not finite, or the data turn out to be damaged.
    """
    start_settings = settings
    if settings.method == "easyquant":
        start_settings = replace(settings, method="minmax" if settings.eq_init == "max" else "kl")
    encodings = thresholds(model, plan, dataset, start_settings, report, progress)
    if settings.method == "easyquant":
        found = search(model, plan, dataset, encodings, settings, report, progress)
        # Nothing is computed from observed values: there is nothing to search them by.
        observed = {name: encodings.activations[name] for name in plan.observed}
        found.encodings.activations.update(observed)
        return found
    return Calibrated(encodings, layer_rows(plan, encodings))

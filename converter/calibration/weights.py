"""Scales for weights: per channel, per convolution group, or one for the tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qconvert.calibration.methods import log2 as log2_codes
from qconvert.calibration.methods.table import WEIGHT_THRESHOLDS
from qconvert.calibration.powers import snap_rows
from qconvert.errors import ModelFormatError
from qconvert.graph import constant
from qconvert.quant import QParams, log2, symmetric

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

    from qconvert.calibration.settings import Settings
    from qconvert.plan import Plan, PlannedLayer
    from qconvert.quant import F32
    from qconvert.report import Report

    F64 = npt.NDArray[np.float64]

__all__ = ["find", "rows"]


def find(model: ir.Model, plan: Plan, settings: Settings, report: Report) -> dict[str, QParams]:
    """Find parameters for every constant weight of `plan`.

    Args:
        model: The optimized float model.
        plan: Layers with their widths and granularities.
        settings: `method` decides how thresholds are chosen, but for weights whose codes are
            exponents.
        report: Is told of channels that are 0 throughout.

    Returns:
        Initializer name → parameters; a weight that two layers share is treated once.

    Raises:
        ModelFormatError: If a weight holds a NaN or an infinity; names the layer.
    """
    found: dict[str, QParams] = {}
    for layer in plan.layers:
        if layer.weight is None or layer.weight in found:
            continue
        held = constant(model.graph.initializers[layer.weight])
        assert held is not None
        weight = held.astype(np.float32, copy=False)
        if not np.isfinite(weight).all():
            raise ModelFormatError(
                f"the weights of '{layer.node}' hold a NaN or an infinity",
                at=f"initializer '{layer.weight}'",
                why="such a value has no integer code",
            )
        values = rows(layer, weight)
        params = _of_rows(layer, values, settings, report)
        if plan.power_of_two:
            params = snap_rows(values, params)
        found[layer.weight] = _spread(layer, params, weight)
    return found


def rows(layer: PlannedLayer, weight: F32) -> F32:
    """The values that share a scale, one row per scale.

    Args:
        layer: Says which axis holds the output channels, and how fine scales are.
        weight: The whole weight.

    Returns:
        [channels, n], [groups, n] or [1, n], float32.
    """
    if layer.granularity == "tensor":
        return weight.reshape(1, -1)
    channels = weight.shape[layer.weight_axis]
    count = layer.groups if layer.granularity == "group" else channels
    return np.moveaxis(weight, layer.weight_axis, 0).reshape(count, -1)


def _of_rows(layer: PlannedLayer, values: F32, settings: Settings, report: Report) -> QParams:
    """Parameters of one weight, a scale per row."""
    bits = layer.weight_bits
    if layer.log2:
        thresholds = log2_codes.row_thresholds(values, bits)
    else:
        thresholds = WEIGHT_THRESHOLDS[settings.method](values, bits, settings)
    dead = np.asarray(~values.any(axis=1))
    if dead.any():
        report.warn(_dead_rows(layer, int(dead.sum()), len(dead)))
        # A dead channel carries nothing: a scale like its neighbours' keeps bias scales in line.
        thresholds[dead] = np.median(thresholds[~dead]) if not dead.all() else 0.0
    return (log2 if layer.log2 else symmetric)(thresholds, bits=bits, axis=0)


def _spread(layer: PlannedLayer, params: QParams, weight: F32) -> QParams:
    """Parameters of rows as those of the weight: one scale, or one per output channel."""
    if layer.granularity == "tensor":
        return replace(
            params, scale=params.scale.reshape(()), zero_point=np.zeros((), np.int32), axis=None
        )
    channels = weight.shape[layer.weight_axis]
    scale = np.repeat(params.scale, channels // len(params.scale))
    zero_point = np.zeros(channels, np.int32)
    return replace(params, scale=scale, zero_point=zero_point, axis=layer.weight_axis)


def _dead_rows(layer: PlannedLayer, dead: int, total: int) -> str:
    """What to say about rows of zeros."""
    if dead == total:
        return f"the weights of layer '{layer.node}' are all 0"
    kind = "channels" if layer.granularity == "channel" else "groups"
    return f"layer '{layer.node}': {dead} of {total} output {kind} have only zero weights"

"""How well the numbers of a tensor fit into codes of one scale, before anything is converted.

Codes are as fine near 0 as near the largest value. So a tensor whose values lie orders of magnitude
apart loses either the large ones (clipped) or the small ones (all code 0), whatever the scale. Two
figures say how much, both at the scale with the smallest squared error:

* `snr_db`: energy of the values over energy of the error. 8 bits give a normal distribution about
  40 dB and a Relu's half of one about 35.
* `lost`: the share of values that are not 0 and get the code of 0. An energy does not see them:
  a few large values can have all of it.

A tensor is too wide where the first is below `LEAST_SNR` or the second above `MOST_LOST`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.calibration.feed import Feed
from qconvert.calibration.methods.loss import Points
from qconvert.calibration.methods.percentile import threshold
from qconvert.calibration.methods.table import STRATEGIES, Statistics, parameters
from qconvert.calibration.observers import Histogram
from qconvert.calibration.weights import rows
from qconvert.graph import constant
from qconvert.quant import code_range

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.calibration.settings import Settings
    from qconvert.dataset.reader import Dataset
    from qconvert.plan import ActivationSpec, Plan, PlannedLayer
    from qconvert.progress import Progress

__all__ = ["LEAST_SNR", "MOST_LOST", "Spread", "of_activations", "of_weights"]

LEAST_SNR: Final = 25.0
MOST_LOST: Final = 0.5
_TYPICAL: Final = 99.9  # per cent of magnitudes that are no outliers


@dataclass(frozen=True, slots=True)
class Spread:
    """How one tensor fits into codes.

    Attributes:
        tensor: Its name.
        layers: The layers that read it on integers.
        bits: Width of the codes.
        snr_db: Signal to error at the best scale; None for a tensor of zeros.
        lost: Share of its values other than 0 that get the code of 0.
        outliers: The largest magnitude over that which 99.9 % of the values stay below.
    """

    tensor: str
    layers: tuple[str, ...]
    bits: int
    snr_db: float | None
    lost: float
    outliers: float

    @property
    def too_wide(self) -> bool:
        """Whether codes of this width lose too much of it."""
        return self.snr_db is not None and (self.snr_db < LEAST_SNR or self.lost > MOST_LOST)


def of_activations(
    model: ir.Model, plan: Plan, dataset: Dataset, settings: Settings, progress: Progress
) -> list[Spread]:
    """Every planned activation over all of `dataset`, in the plan's order.

    Raises:
        CalibrationError: If a value is not finite.
    """
    seen = {name: Histogram() for name in plan.activations}
    with Feed(model, list(seen), settings.threads) as feed:
        progress.start("measuring distributions", len(dataset))
        feed.observe(dataset, seen, progress)
        progress.finish()
    readers: dict[str, list[str]] = {name: [] for name in plan.activations}
    for layer in plan.layers:
        readers[layer.input].append(layer.node)
    return [
        _of_histogram(name, tuple(readers[name]), plan.activations[name], histogram, settings)
        for name, histogram in seen.items()
    ]


def _of_histogram(
    name: str,
    layers: tuple[str, ...],
    spec: ActivationSpec,
    histogram: Histogram,
    settings: Settings,
) -> Spread:
    """One activation."""
    seen = histogram.range
    if seen.magnitude == 0.0:
        return Spread(name, layers, spec.bits, None, 0.0, 1.0)
    points = Points.of(histogram)
    limits = STRATEGIES["mse"].limits(Statistics(seen, histogram), spec, settings)
    params = parameters(limits, spec)
    codes = np.rint(points.values / float(params.scale))
    others = points.nonzero().weights
    typical = threshold(histogram, _TYPICAL)
    return Spread(
        name,
        layers,
        spec.bits,
        _decibels(points.moment(2), points.loss(params)),
        float(others[codes == 0].sum()),
        seen.magnitude / typical if typical > 0 else math.inf,
    )


def of_weights(model: ir.Model, plan: Plan) -> list[Spread]:
    """Every constant weight of uniform codes, with the plan's number of scales.

    The scale of a row is that of its largest magnitude: nothing is clipped.
    """
    found: dict[str, Spread] = {}
    for layer in plan.layers:
        if layer.weight is None or layer.weight in found or layer.log2:
            continue
        held = constant(model.graph.initializers[layer.weight])
        assert held is not None
        values = rows(layer, held.astype(np.float32, copy=False))
        readers = tuple(other.node for other in plan.layers if other.weight == layer.weight)
        found[layer.weight] = _of_rows(layer, readers, values)
    return list(found.values())


def _of_rows(
    layer: PlannedLayer,
    readers: tuple[str, ...],
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> Spread:
    """One weight, a scale per row."""
    largest = np.abs(values).max(axis=1, initial=0.0)
    scale = np.where(largest > 0, largest / code_range(layer.weight_bits)[1], 1.0)[:, None]
    codes = np.rint(values / scale)
    energy = float(np.square(values, dtype=np.float64).sum())
    error = float(np.square(values - codes * scale, dtype=np.float64).sum())
    other = int(np.count_nonzero(values))
    lost = np.count_nonzero((codes == 0) & (values != 0)) / max(other, 1)
    typical = float(np.percentile(np.abs(values), _TYPICAL))
    return Spread(
        str(layer.weight),
        readers,
        layer.weight_bits,
        _decibels(energy, error) if energy else None,
        float(lost),
        float(largest.max(initial=0.0)) / typical if typical > 0 else math.inf,
    )


def _decibels(signal: float, error: float) -> float:
    """Their ratio; at most 120, which no codes of interest reach."""
    return 120.0 if error <= signal * 1e-12 else 10.0 * math.log10(signal / error)

"""The inputs a conversion is verified on: calibration images, or seeded random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.cost import total_macs
from qconvert.graph import input_shapes
from qconvert.pipeline.data import dataset_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.dataset.reader import Dataset
    from qconvert.quant import F32
    from qconvert.recipe import Recipe

__all__ = ["Samples", "samples_for"]

_MOST: Final = 32
_FEWEST: Final = 4
_RANDOM: Final = 3
_BUDGET: Final = 2e10
"""Multiply-accumulates one runtime may spend on verification: large networks see fewer images."""


@dataclass(frozen=True, slots=True)
class Samples:
    """What a conversion is verified on.

    Attributes:
        shapes: Network input → shape.
        dataset: Calibration data; None: seeded random inputs.
        count: How many samples `__iter__` gives.
        seed: For random inputs.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dataset: Dataset | None
    count: int
    seed: int

    def __iter__(self) -> Iterator[Mapping[str, F32]]:
        """Inputs, evenly spread over the data; the same ones every time."""
        if self.dataset is None:
            rng = np.random.default_rng(self.seed)
            for _ in range(self.count):
                yield {
                    name: rng.standard_normal(shape, dtype=np.float32)
                    for name, shape in self.shapes.items()
                }
            return
        spread = np.linspace(0, len(self.dataset) - 1, self.count).round().astype(int)
        for sample in self.dataset.subset([int(index) for index in spread]):
            yield sample.inputs


def samples_for(model: ir.Model, data: Path | None, recipe: Recipe) -> Samples:
    """Choose the samples for `model`.

    Raises:
        CalibrationError: If the data does not fit the model.
    """
    shapes = input_shapes(model)
    if data is None:
        return Samples(shapes, None, _RANDOM, recipe.seed)
    dataset = dataset_for(model, data, recipe.preprocess, jobs=recipe.jobs)
    affordable = int(_BUDGET / max(total_macs(model), 1))
    count = min(len(dataset), max(_FEWEST, min(_MOST, affordable)))
    return Samples(shapes, dataset, count, recipe.seed)

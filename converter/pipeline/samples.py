"""The inputs a conversion is verified on: calibration images, or seeded random ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.cost import total_macs
from qconvert.graph import index_rows, input_shapes
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
        rows: Network input that holds indices → how many rows it chooses from.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dataset: Dataset | None
    count: int
    seed: int
    rows: Mapping[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Mapping[str, F32]]:
        """Inputs, evenly spread over the data; the same ones every time."""
        if self.dataset is None:
            rng = np.random.default_rng(self.seed)
            for _ in range(self.count):
                yield {name: self._random(name, shape, rng) for name, shape in self.shapes.items()}
            return
        spread = np.linspace(0, len(self.dataset) - 1, self.count).round().astype(int)
        for sample in self.dataset.subset([int(index) for index in spread]):
            yield sample.inputs

    def _random(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
        """Indices where an input holds them, else numbers of any kind."""
        if name in self.rows:
            return rng.integers(0, self.rows[name], shape).astype(np.float32)
        return rng.standard_normal(shape, dtype=np.float32)


def samples_for(model: ir.Model, data: Path | None, recipe: Recipe) -> Samples:
    """Choose the samples for `model`.

    Raises:
        CalibrationError: If the data does not fit the model.
    """
    shapes = input_shapes(model)
    if data is None:
        found = {str(value.name): index_rows(value) for value in model.graph.inputs}
        rows = {name: count for name, count in found.items() if count is not None}
        return Samples(shapes, None, _RANDOM, recipe.seed, rows)
    dataset = dataset_for(model, data, recipe.preprocess, jobs=recipe.jobs)
    affordable = int(_BUDGET / max(total_macs(model), 1))
    count = min(len(dataset), max(_FEWEST, min(_MOST, affordable)))
    return Samples(shapes, dataset, count, recipe.seed)

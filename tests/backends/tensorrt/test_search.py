"""The scale search computes with exactly those roundings that the Q/DQ model has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from typing_extensions import override

from qconvert.calibration.easyquant.walk import Decider, Walk
from qconvert.calibration.run import calibrate
from qconvert.calibration.settings import Settings
from qconvert.dataset.reader import open_dataset
from qconvert.graph import input_shapes
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.progress import Quiet
from qconvert.report import Report
from tests.backends.tensorrt.support import (
    cosine,
    encodings_for,
    image,
    planned,
    quantized,
    residual,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qconvert.plan import PlannedLayer


class Settled(Decider):
    """Takes encodings as they are."""

    @override
    def decide(self, walk: Walk, name: str, layers: Sequence[PlannedLayer]) -> None: ...

    @override
    def finish(self, walk: Walk, layer: PlannedLayer) -> None: ...


def test_a_walk_gives_what_the_model_gives(rng: np.random.Generator) -> None:
    model, feed = residual(rng), image(rng)
    simulation = quantized(model, feed)

    walk = Walk(model, planned(model), encodings_for(model, feed), [feed], threads=1)
    walk.run(Settled())

    np.testing.assert_allclose(
        np.asarray(walk.seen("prob")[0]), run(simulation, feed)["prob"], atol=1e-5
    )


@pytest.mark.parametrize("method", ["easyquant", "minmax"])
def test_a_calibration_finds_a_scale_for_every_value_of_the_plan(
    method: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = residual(rng)
    inputs = rng.normal(size=(4, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", inputs)
    data = open_dataset(tmp_path / "x.npy", input_shapes(model), preprocessing=None)
    settings = Settings(method=method, effort="fast", threads=1)  # type: ignore[arg-type]  # one of the methods
    layout = planned(model)

    found = calibrate(model, layout, data, settings, Report(), Quiet()).encodings

    assert set(found.activations) == set(layout.scaled)
    simulation, feed = insert_qdq(model, layout, found), {"data": inputs[:1]}
    assert cosine(run(simulation, feed)["prob"], run(model, feed)["prob"]) > 0.999

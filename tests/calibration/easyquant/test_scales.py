"""Chosen scales against a brute-force search through onnxruntime's own Q/DQ operators."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typing_extensions import override

from qconvert.calibration.easyquant.activations import refine
from qconvert.calibration.easyquant.fake import resized
from qconvert.calibration.easyquant.reader import Reader, cosines
from qconvert.calibration.easyquant.views import made_reader
from qconvert.calibration.easyquant.walk import Decider, Walk
from qconvert.calibration.easyquant.weights import choose
from qconvert.plan import PlannedLayer, Scheme
from tests.calibration.easyquant.conftest import policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qconvert.quant import Encodings, QParams
    from tests.calibration.easyquant.conftest import Build, Case

FACTORS = np.linspace(0.4, 1.2, 17)


class _Stop(Decider):
    """Hands the one layer of a network to a test."""

    def __init__(self, start: Encodings, work: Callable[[Reader, QParams], None]) -> None:
        self.start, self.work = start, work

    @override
    def decide(self, walk: Walk, name: str, layers: Sequence[PlannedLayer]) -> None:
        walk.encodings.activations[name] = self.start.activations[name]
        for layer in layers:
            walk.encodings.weights[layer.weight or ""] = self.start.weights[layer.weight or ""]
            reader = made_reader(walk, layer, None)
            assert reader is not None
            self.work(reader, self.start.activations[name])

    @override
    def finish(self, walk: Walk, layer: PlannedLayer) -> None:
        pass


def _at_layer(built: Case, work: Callable[[Reader, QParams], None]) -> None:
    inputs = [sample.inputs for sample in built.samples]
    start = replace(built.start, activations={}, weights={})
    Walk(built.model, built.plan, start, inputs, threads=1).run(_Stop(built.start, work))


def _layer(case: Build, rng: np.random.Generator, granularity: str, count: int = 4) -> Case:
    weights = {
        "w": rng.laplace(size=(4, 3, 3, 3)).astype(np.float32),
        "b": rng.normal(size=4).astype(np.float32),
    }
    return case(
        "[a] y = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w, b)",
        weights=weights,
        scheme=Scheme(weight_bits=4, activation_bits=5),
        target=policy(granularity),  # type: ignore[arg-type]
        count=count,
    )


def test_one_weight_scale_is_the_best_of_the_candidates(
    case: Build, rng: np.random.Generator
) -> None:
    built = _layer(case, rng, "tensor", count=1)
    start = built.start.weights["w"]
    found: list[np.ndarray] = []

    def work(reader: Reader, params: QParams) -> None:
        choose(reader, params, FACTORS)
        found.append(reader.scales)

    _at_layer(built, work)

    candidates = [start.scale * np.float32(f) for f in (1.0, *FACTORS)]
    scores = []
    for scale in candidates:
        params = replace(start, scale=np.asarray(scale, np.float32))
        scores.append(built.cosine(replace(built.start, weights={"w": params})))
    chosen = int(np.argmin([abs(float(found[0][0]) - float(c)) for c in candidates]))
    assert scores[chosen] == pytest.approx(max(scores), abs=1e-6)


def test_channel_scales_together_maximize_one_samples_cosine(
    case: Build, rng: np.random.Generator
) -> None:
    built = _layer(case, rng, "channel", count=1)
    start = built.start.weights["w"]
    found: list[np.ndarray] = []

    def work(reader: Reader, params: QParams) -> None:
        choose(reader, params, FACTORS)
        found.append(reader.scales)

    _at_layer(built, work)

    def cosine(scale: np.ndarray) -> float:
        params = replace(start, scale=scale.astype(np.float32))
        return built.cosine(replace(built.start, weights={"w": params}))

    best = cosine(found[0])
    assert best > cosine(start.scale)
    # No channel alone can do better: brute force over every candidate of each.
    for channel in range(4):
        for factor in FACTORS:
            other = found[0].copy()
            other[channel] = start.scale[channel] * np.float32(factor)
            assert cosine(other) <= best + 1e-5


def test_an_activation_scale_is_as_good_as_a_fine_grid(
    case: Build, rng: np.random.Generator
) -> None:
    built = _layer(case, rng, "channel")
    start = built.start.activations["x"]
    found: list[QParams] = []

    def work(reader: Reader, params: QParams) -> None:
        weight = reader.weight()

        def score(candidate: QParams) -> float:
            return reader.score(candidate, weight)

        found.append(refine(params, score, score(params))[0])

    _at_layer(built, work)

    def cosine(params: QParams) -> float:
        return built.cosine(replace(built.start, activations={"x": params}))

    grid = [cosine(resized(start, f, f)) for f in np.geomspace(0.25, 2, 60).tolist()]
    assert 1 - cosine(found[0]) <= 1.02 * (1 - max(grid))


def test_the_cosine_of_nothing_is_defined() -> None:
    found = cosines([0.0, 0.0, 2.0], [0.0, 0.0, 4.0], [0.0, 3.0, 1.0])

    np.testing.assert_array_equal(found, [1.0, 0.0, 1.0])

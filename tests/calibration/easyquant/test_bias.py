from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qconvert.calibration.easyquant.decider import Search
from qconvert.calibration.easyquant.effort import EFFORTS
from qconvert.calibration.easyquant.walk import Walk
from qconvert.plan import Scheme
from qconvert.progress import Quiet
from qconvert.quant import Encodings

if TYPE_CHECKING:
    from tests.calibration.easyquant.conftest import Build

BODY = (
    "[a] h = Conv(x, w, b) [r] i = Relu(h) [c] j = Conv<group = 2>(i, v, c) [f] o = Flatten(j)"
    "[g] y = Gemm(o, u, d)"
)


def test_corrected_biases_restore_the_mean_output(case: Build, rng: np.random.Generator) -> None:
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "v": (6, 2, 3, 3), "c": (6,), "u": (96, 5), "d": (5,)}
    weights = {name: rng.laplace(size=shape).astype(np.float32) for name, shape in shapes.items()}
    scheme = Scheme(weight_bits=3, activation_bits=3)
    built = case(BODY, weights=weights, scheme=scheme, y="float[N, M] y")
    budget = replace(EFFORTS["fast"], correction=True)
    walk = Walk(built.model, built.plan, Encodings(), [s.inputs for s in built.samples], threads=1)

    walk.run(Search(built.plan, built.start, budget, 0, {}, Quiet()))

    assert set(walk.encodings.biases) == {"b", "c", "d"}
    exact = np.mean(built.outputs(), axis=0)
    shifted = replace_biases(walk.encodings)
    corrected = np.mean(built.outputs(walk.encodings), axis=0)
    np.testing.assert_allclose(corrected, exact, rtol=1e-3, atol=1e-3 * np.abs(exact).max())
    assert (
        np.abs(np.mean(built.outputs(shifted), axis=0) - exact).max()
        > np.abs(corrected - exact).max()
    )


def replace_biases(encodings: Encodings) -> Encodings:
    """The same scales, biases as they were."""
    return Encodings(encodings.activations, encodings.weights)


def test_refinement_that_does_not_help_is_dropped(case: Build, rng: np.random.Generator) -> None:
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "v": (6, 2, 3, 3), "c": (6,), "u": (96, 5), "d": (5,)}
    weights = {name: rng.laplace(size=shape).astype(np.float32) for name, shape in shapes.items()}
    scheme = Scheme(weight_bits=4, activation_bits=4)
    built = case(BODY, weights=weights, scheme=scheme, y="float[N, M] y")
    built.settings = replace(built.settings, bias_correction=True, rounding="optimal")
    plain = replace(
        built, settings=replace(built.settings, bias_correction=False, rounding="nearest")
    )

    refined = built.cosine(built.search().encodings)

    assert refined >= plain.cosine(plain.start) - 1e-6

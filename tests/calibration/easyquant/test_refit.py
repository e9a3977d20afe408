from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.calibration.refine.refit import Moments, refit, shifted
from qconvert.calibration.settings import Settings
from qconvert.plan import Scheme

if TYPE_CHECKING:
    from tests.calibration.easyquant.conftest import Build

BODY = (
    "[a] h = Conv<pads = [1, 1, 1, 1]>(x, w, b) [r] i = Relu(h)"
    "[c] j = Conv<pads = [1, 1, 1, 1]>(i, v, c) [s] k = Relu(j) [e] y = Conv(k, u, d)"
)


def _weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Of three layers, the last with five outputs."""
    shapes: dict[str, tuple[int, ...]] = {
        "w": (8, 3, 3, 3), "b": (8,), "v": (8, 8, 3, 3), "c": (8,), "u": (5, 8, 1, 1), "d": (5,)
    }  # fmt: skip
    return {name: rng.laplace(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _moments(x: np.ndarray, left: np.ndarray) -> Moments:
    return Moments.of(x.astype(np.float32), left.astype(np.float32), 1.0)


@given(
    seed=st.integers(0, 2**31),
    depth=st.integers(1, 8),
    damping=st.floats(0.01, 10),
    biased=st.booleans(),
)
def test_the_step_is_the_ridge_regression_of_what_is_left(
    seed: int, depth: int, damping: float, *, biased: bool
) -> None:
    rng = np.random.default_rng(seed)
    x, left = rng.normal(size=(1, depth, 40)) + 1, rng.normal(size=(1, 3, 40))

    change, shift = _moments(x, left).solve(damping, biased=biased)

    x, left = x.astype(np.float32).astype(np.float64), left.astype(np.float32).astype(np.float64)
    centre = x[0].mean(axis=1, keepdims=True) if biased else np.zeros((depth, 1))
    spread = np.sqrt(damping * np.square(x[0] - centre).sum() / depth)
    rows = np.vstack([x[0].T, spread * np.eye(depth)])
    if biased:
        rows = np.hstack([rows, np.r_[np.ones(40), np.zeros(depth)][:, None]])
    goal = np.vstack([left[0].T, np.zeros((depth, 3))])
    expected, *_ = np.linalg.lstsq(rows, goal, rcond=None)
    np.testing.assert_allclose(change[0], expected[:depth].T, atol=1e-3)
    np.testing.assert_allclose(shift[0], expected[depth] if biased else 0, atol=1e-3)


@given(seed=st.integers(0, 2**31), biased=st.booleans())
def test_a_gain_is_the_squared_error_that_goes(seed: int, *, biased: bool) -> None:
    rng = np.random.default_rng(seed)
    x, left = rng.normal(size=(2, 4, 30)), rng.normal(size=(2, 3, 30))
    found = _moments(x, left)

    change, shift = found.solve(0.1, biased=biased)

    after = left - change @ x - shift[:, :, None]
    gained = np.square(left).sum() - np.square(after).sum()
    assert found.gain(change, shift) == pytest.approx(gained, rel=1e-3, abs=1e-3)


def test_noise_that_inputs_do_not_explain_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    sides = [(rng.normal(size=(1, 16, 40)), rng.normal(size=(1, 8, 40))) for _ in range(2)]

    def folds(_m: np.ndarray, _b: np.ndarray) -> list[Moments]:
        return [_moments(*side) for side in sides]

    weight = np.zeros((1, 8, 16), np.float32)
    found = refit(weight, np.zeros(8, np.float32), folds, biased=True)

    assert found is None or np.abs(found[0]).max() < 0.1


@given(seed=st.integers(0, 2**31))
def test_a_bias_takes_up_the_shift_that_both_halves_have(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shift = rng.choice([-2.0, 2.0], size=(4, 1))
    sides = [shift + rng.normal(size=(4, 50)) * 0.1 for _ in range(2)]

    def folds(bias: np.ndarray) -> list[tuple[np.ndarray, float]]:
        return [((side + 1 - bias[:, None]).sum(axis=1), 50.0) for side in sides]

    found = shifted(np.ones(4, np.float32), folds)

    wanted = 1 + np.concatenate(sides, axis=1).mean(axis=1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_bias_stays_where_the_halves_disagree() -> None:
    left = np.array([1.0, 0.5])

    found = shifted(np.zeros(2, np.float32), lambda b: [(left - b, 1.0), (-left - b, 1.0)])

    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize(
    ("settings", "codes", "biases"),
    [
        pytest.param(Settings(), True, True, id="default"),
        pytest.param(Settings(effort="fast"), False, False, id="fast"),
        pytest.param(Settings(eq_mode="paper"), False, False, id="paper"),
        pytest.param(Settings(refit=False), True, False, id="weights as they are"),
        pytest.param(Settings(refit=False, rounding="nearest"), False, False, id="scales alone"),
        pytest.param(Settings(effort="fast", rounding="optimal"), True, False, id="fast, rounded"),
        pytest.param(
            Settings(eq_mode="paper", rounding="optimal"), True, False, id="paper, rounded"
        ),
        pytest.param(Settings(eq_mode="paper", refit=True), True, True, id="paper, fitted"),
    ],
)
def test_weights_change_as_far_as_they_may(
    case: Build, rng: np.random.Generator, settings: Settings, *, codes: bool, biases: bool
) -> None:
    built = case(BODY, weights=_weights(rng), count=12)
    built.settings = replace(settings, threads=1, eq_rounds=1)

    found = built.search().encodings

    assert (bool(found.rounded), bool(found.biases)) == (codes, biases)


@pytest.mark.slow
def test_fitted_weights_come_nearer_to_float_on_unseen_samples(case: Build) -> None:
    gains = []
    for seed in range(4):
        built = case(
            BODY,
            weights=_weights(np.random.default_rng(seed)),
            scheme=Scheme(weight_bits=4, activation_bits=4),
            x=(1, 3, 12, 12),
            count=32,
        )
        unseen = replace(built, samples=built.samples[16:])
        built.samples = built.samples[:16]
        plain, fitted = (
            replace(built, settings=replace(built.settings, effort=effort, eq_rounds=1)).search()
            for effort in ("fast", "default")
        )
        gains.append(unseen.cosine(fitted.encodings) - unseen.cosine(plain.encodings))

    assert np.mean(gains) > 0


def test_few_samples_are_not_fitted_to(case: Build, rng: np.random.Generator) -> None:
    built = case(BODY, weights=_weights(rng), count=4)
    built.settings = replace(built.settings, effort="default")

    found = built.search().encodings

    assert not found.rounded
    assert not found.biases


def test_figures_that_decide_are_shown_apart(case: Build, rng: np.random.Generator) -> None:
    warnings: list[str] = []
    for _ in range(6):
        built = case(
            BODY,
            weights=_weights(rng),
            scheme=Scheme(weight_bits=16, activation_bits=16),
            count=8,
        )
        built.settings = Settings(threads=1, eq_rounds=1)
        built.search()
        warnings += built.report.warnings

    pairs = [re.search(r"\(cosine (\S+), not (\S+)\)", text) for text in warnings]
    assert any(pairs)
    assert all(found is None or float(found[1]) > float(found[2]) for found in pairs)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.calibration.refine.rounding import round_held_out, round_rows


def _layer(seed: int, rows: int, depth: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight, and correlated inputs [K, P]."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(depth, depth))
    x = np.maximum(mixing @ rng.laplace(size=(depth, samples)), 0)
    return rng.normal(size=(rows, depth)).astype(np.float32), x.astype(np.float32)


def _nearest(weight: np.ndarray, scales: np.ndarray, top: int) -> np.ndarray:
    return np.asarray(np.clip(np.rint(weight / scales[:, None]), -top, top))


@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 6),
    depth=st.integers(1, 24),
    samples=st.integers(1, 60),
    bits=st.integers(2, 8),
)
def test_codes_are_near_the_nearest_and_no_row_is_worse(
    seed: int, rows: int, depth: int, samples: int, bits: int
) -> None:
    weight, x = _layer(seed, rows, depth, samples)
    top = 2 ** (bits - 1) - 1
    scales = np.maximum(0.8 * np.abs(weight).max(axis=1) / top, 1e-6).astype(np.float32)

    codes = round_rows(weight[None], scales[None], (x @ x.T)[None], top, 0.5)[0]

    nearest = _nearest(weight, scales, top)
    assert np.abs(codes).max() <= top
    assert np.abs(codes - nearest).max() <= 1
    exact = weight.astype(np.float64) @ x
    errors = [
        np.square(exact - (each * scales[:, None]).astype(np.float64) @ x).sum(axis=1)
        for each in (codes, nearest)
    ]
    assert (errors[0] <= errors[1] * (1 + 1e-4) + 1e-9).all()


@pytest.mark.parametrize("depth", [32, 150])
def test_correlated_inputs_are_worth_the_effort(depth: int) -> None:
    weight, x = _layer(3, 16, depth, 400)
    scales = (np.abs(weight).max(axis=1) / 7).astype(np.float32)

    codes = round_rows(weight[None], scales[None], (x @ x.T)[None], 7, 0.5)[0]

    exact = weight @ x
    errors = [
        np.square(exact - (each * scales[:, None]) @ x).sum()
        for each in (codes, _nearest(weight, scales, 7))
    ]
    assert errors[0] < 0.7 * errors[1]


def test_an_input_that_is_always_zero_rounds_to_nearest() -> None:
    weight, _ = _layer(4, 3, 5, 1)
    scales = np.full(3, 0.1, np.float32)

    codes = round_rows(weight[None], scales[None], np.zeros((1, 5, 5)), 127, 0.5)[0]

    np.testing.assert_array_equal(codes, _nearest(weight, scales, 127))


def test_groups_are_rounded_each_by_its_own_inputs() -> None:
    layers = [_layer(seed, 4, 12, 100) for seed in range(3)]
    weight = np.stack([rows for rows, _ in layers])
    moments = np.stack([x @ x.T for _, x in layers]).astype(np.float64)
    scales = (np.abs(weight).max(axis=2) / 7).astype(np.float32)

    together = round_rows(weight, scales, moments, 7, 0.1)

    for group in range(3):
        one = slice(group, group + 1)
        alone = round_rows(weight[one], scales[one], moments[one], 7, 0.1)
        np.testing.assert_array_equal(together[one], alone)


def test_codes_chosen_by_halves_pay_on_samples_that_neither_has() -> None:
    weight, x = _layer(5, 16, 32, 900)
    thirds = [x[:, start::3] for start in range(3)]
    scales = (np.abs(weight).max(axis=1) / 7).astype(np.float32)
    first, second = ((part @ part.T)[None].astype(np.float64) for part in thirds[:2])

    codes = round_held_out(weight[None], scales[None], (first, second), 7)

    assert codes is not None
    errors = [
        np.square((weight - each * scales[:, None]) @ thirds[2]).sum()
        for each in (codes[0], _nearest(weight, scales, 7))
    ]
    assert errors[0] < 0.8 * errors[1]


def test_halves_that_have_nothing_in_common_leave_the_nearest_codes() -> None:
    weight, _ = _layer(6, 4, 8, 1)
    scales = (np.abs(weight).max(axis=1) / 7).astype(np.float32)
    # In either half one direction counts, across the other's.
    first, second = np.zeros((8, 8)), np.zeros((8, 8))
    first[:4, :4], second[:4, :4] = 1.0, np.eye(4) - 0.25

    codes = round_held_out(weight[None], scales[None], (first[None], second[None]), 7)

    assert codes is None

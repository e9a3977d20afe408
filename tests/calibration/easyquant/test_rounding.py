from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qconvert.calibration.refine.rounding import round_rows


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

    codes = round_rows(weight, scales, x @ x.T, top)

    nearest = _nearest(weight, scales, top)
    assert np.abs(codes).max() <= top
    assert np.abs(codes - nearest).max() <= 1
    exact = weight.astype(np.float64) @ x
    errors = [
        np.square(exact - (each * scales[:, None]).astype(np.float64) @ x).sum(axis=1)
        for each in (codes, nearest)
    ]
    assert (errors[0] <= errors[1] * (1 + 1e-4) + 1e-9).all()


def test_correlated_inputs_are_worth_the_effort() -> None:
    weight, x = _layer(3, 16, 32, 400)
    scales = (np.abs(weight).max(axis=1) / 7).astype(np.float32)

    codes = round_rows(weight, scales, x @ x.T, 7)

    exact = weight @ x
    errors = [
        np.square(exact - (each * scales[:, None]) @ x).sum()
        for each in (codes, _nearest(weight, scales, 7))
    ]
    assert errors[0] < 0.7 * errors[1]


def test_an_input_that_is_always_zero_rounds_to_nearest() -> None:
    weight, _ = _layer(4, 3, 5, 1)
    scales = np.full(3, 0.1, np.float32)

    codes = round_rows(weight, scales, np.zeros((5, 5), np.float32), 127)

    np.testing.assert_array_equal(codes, _nearest(weight, scales, 127))

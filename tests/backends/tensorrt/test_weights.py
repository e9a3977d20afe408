"""A scale goes through float weights and TensorRT's own arithmetic and comes out the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qconvert.backends.tensorrt.weights import hold, settled
from qconvert.quant import QParams, quantize

if TYPE_CHECKING:
    from qconvert.quant import F32

SCALES = st.floats(min_value=float(np.float32(1e-30)), max_value=float(np.float32(1e30)), width=32)


def derived(weight: F32, axis: int) -> F32:
    """What TensorRT makes of a weight: max|w| / 127 per output channel, in float32."""
    rows = np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1))
    return np.asarray(rows.max(axis=1).astype(np.float32) / np.float32(127), np.float32)


@given(hnp.arrays(np.float32, st.integers(1, 40), elements=SCALES))
def test_settled_scales_are_next_to_the_given_and_come_back(scales: F32) -> None:
    found = settled(scales)

    np.testing.assert_array_equal((found * np.float32(127)) / np.float32(127), found)
    np.testing.assert_array_less(np.abs(found - scales), 1.01 * np.spacing(scales))


@given(
    weight=hnp.arrays(
        np.float32, (5, 3, 2, 2), elements=st.floats(-8, 8, width=32, allow_subnormal=False)
    ),
    factor=st.floats(0.3, 1.0),
    axis=st.sampled_from([0, 1]),
)
def test_clipped_scales_survive_bit_by_bit(weight: F32, factor: float, axis: int) -> None:
    limits = np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)).max(axis=1)
    alive = limits > 1e-6
    scale = np.where(alive, limits * factor / 127, 1).astype(np.float32)
    codes = quantize(weight, QParams(scale, np.zeros(scale.shape, np.int32), axis=axis))

    held = hold(weight, codes, scale, axis)

    kept = alive & ~held.changed
    assert kept[alive].all()
    np.testing.assert_array_equal(derived(held.weight, axis)[kept], held.scale[kept])
    np.testing.assert_array_equal(held.scale[kept], settled(scale)[kept])
    again = quantize(held.weight, QParams(held.scale, np.zeros(scale.shape, np.int32), axis=axis))
    index = np.flatnonzero(kept)
    np.testing.assert_array_equal(np.take(again, index, axis), np.take(codes, index, axis))


@given(
    weight=hnp.arrays(
        np.float32, (4, 6), elements=st.floats(-8, 8, width=32, allow_subnormal=False)
    ),
    factor=st.floats(1.02, 3.0),
)
def test_wider_scales_fall_back_to_the_largest_weight(weight: F32, factor: float) -> None:
    limits = np.abs(weight).max(axis=1)
    alive = limits > 1e-6
    scale = np.where(alive, limits * factor / 127, 1).astype(np.float32)
    codes = quantize(weight, QParams(scale, np.zeros(4, np.int32), axis=0))

    held = hold(weight, codes, scale, 0)

    assert held.changed[alive].all()
    np.testing.assert_array_equal(derived(held.weight, 0)[alive], held.scale[alive])
    np.testing.assert_allclose(held.scale[alive], limits[alive] / 127, rtol=3e-7)
    error = np.abs(held.weight - weight)[alive]
    assert (error <= 0.501 * held.scale[alive, None]).all()


def test_a_channel_of_zeros_stays_one() -> None:
    weight = np.zeros((2, 3), np.float32)

    held = hold(weight, np.zeros((2, 3), np.int8), np.ones(2, np.float32), 0)

    assert not held.weight.any()
    assert not held.changed.any()

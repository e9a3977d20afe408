from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.verification.detections import align, rows

if TYPE_CHECKING:
    from random import Random

    from qconvert.quant import F32

DOG = [2, 0.9, 0.1, 0.1, 0.4, 0.5]
CAR = [7, 0.8, 0.5, 0.2, 0.9, 0.4]
CAR_MOVED = [7, 0.7, 0.51, 0.2, 0.9, 0.41]


def table(*boxes: list[float]) -> F32:
    return np.asarray(boxes, dtype=np.float32).reshape(-1, 6)


def caffe(*boxes: list[float]) -> F32:
    return np.asarray([[0, *box] for box in boxes], dtype=np.float32).reshape(1, 1, -1, 7)


def test_the_order_of_rows_does_not_matter() -> None:
    a, b = align(table(DOG, CAR), table(CAR_MOVED, DOG))

    np.testing.assert_array_equal(a, table(DOG, CAR)[:, 1:])
    np.testing.assert_array_equal(b, table(DOG, CAR_MOVED)[:, 1:])


def test_caffe_rows_and_ncnn_rows_are_the_same_boxes() -> None:
    a, b = align(caffe(DOG, CAR), table(DOG, CAR))

    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "nothing",
    [table(), caffe([-1] * 6), np.zeros((0,), np.float32), np.zeros((1, 1, 0, 7), np.float32)],
    ids=["no_rows", "row_of_minus_one", "empty", "empty_caffe"],
)
def test_nothing_found_is_no_row(nothing: F32) -> None:
    assert rows(nothing).shape == (0, 6)
    a, b = align(nothing, nothing)
    assert a.shape == b.shape == (0, 5)


def test_a_box_that_only_one_run_found_counts_against_zeros() -> None:
    a, b = align(table(DOG), table(DOG, CAR))

    np.testing.assert_array_equal(a[1], np.zeros(5))
    np.testing.assert_array_equal(b[1], table(CAR)[0, 1:])


def test_another_label_is_another_box() -> None:
    relabelled = [3, *DOG[1:]]

    a, b = align(table(DOG), table(relabelled))

    assert len(a) == len(b) == 2


def test_equal_boxes_are_paired_by_score() -> None:
    again = [2, 0.3, *DOG[2:]]

    a, b = align(table(DOG, again), table(again, DOG))

    np.testing.assert_array_equal(a, b)


def test_boxes_without_area_are_the_same_when_equal() -> None:
    point = [1, 0.5, 0.2, 0.2, 0.2, 0.2]

    a, b = align(table(point), table(point))

    np.testing.assert_array_equal(a, b)
    assert len(a) == 1


def test_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="6 or 7 columns, not 5"):
        rows(np.zeros((3, 5), np.float32))


CORNERS = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20))
BOXES = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 99), CORNERS), max_size=8)


@given(BOXES, st.randoms(use_true_random=False))
def test_a_shuffled_set_is_the_same_set(
    boxes: list[tuple[int, int, tuple[int, int, int, int]]], random: Random
) -> None:
    made = [[label, score / 100, x, y, x + w, y + h] for label, score, (x, y, w, h) in boxes]
    shuffled = list(made)
    random.shuffle(shuffled)

    a, b = align(table(*made), table(*shuffled))

    np.testing.assert_array_equal(a, b)
    assert len(a) == len(made)

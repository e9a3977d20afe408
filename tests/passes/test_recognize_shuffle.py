"""A channel shuffle is one, however it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.passes.order import optimize
from qconvert.report import Report

if TYPE_CHECKING:
    from tests.passes.conftest import Build, Run

CHANNELS, HEIGHT, WIDTH = 12, 2, 5


@dataclass(frozen=True, slots=True)
class Case:
    """A way to write it, and the groups it has (None: it is no shuffle)."""

    id: str
    split: tuple[int, ...]
    perm: tuple[int, ...]
    groups: int | None

    def body(self) -> str:
        """Reshape, Transpose, Reshape."""
        perm = ", ".join(map(str, self.perm))
        return f"a = Reshape(x, split) b = Transpose<perm = [{perm}]>(a) [s] y = Reshape(b, whole)"


CASES = [
    Case("five axes", (1, 3, 4, 2, 5), (0, 2, 1, 3, 4), 3),
    Case("image in one axis", (1, 3, 4, 10), (0, 2, 1, 3), 3),
    Case("without batch", (4, 3, 2, 5), (1, 0, 2, 3), 4),
    Case("three axes", (6, 2, 10), (1, 0, 2), 6),
    Case("rows moved too", (1, 3, 4, 2, 5), (0, 2, 1, 4, 3), None),
    Case("between rows", (1, 12, 2, 5), (0, 1, 3, 2), None),
]


def shuffled(x: np.ndarray, groups: int) -> np.ndarray:
    parts = x.reshape(1, groups, -1, *x.shape[2:])
    return np.asarray(parts.swapaxes(1, 2).reshape(x.shape))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_spelling_becomes_the_one(
    case: Case, graph: Build, run: Run, rng: np.random.Generator
) -> None:
    shape = (1, CHANNELS, HEIGHT, WIDTH)
    model = graph(
        f"net (float[1, 12, 2, 5] x) => (float[1, 12, 2, 5] y) {{ {case.body()} }}",
        split=np.array(case.split, np.int64),
        whole=np.array(shape, np.int64),
    )
    x = rng.normal(size=shape).astype(np.float32)
    before = run(model, {"x": x})["y"]

    optimize(model, report := Report())

    np.testing.assert_array_equal(run(model, {"x": x})["y"], before)
    splits = [tuple(node.outputs[0].shape or ()) for node in model.graph][:1]
    if case.groups is None:
        assert splits == [case.split] or case.id == "between rows"
        assert not any(note.step == "recognize_shuffle" for note in report.notes)
        return
    np.testing.assert_array_equal(before, shuffled(x, case.groups))
    assert [node.op_type for node in model.graph] == ["Reshape", "Transpose", "Reshape"]
    assert splits == [(1, case.groups, CHANNELS // case.groups, HEIGHT, WIDTH)]


@pytest.mark.parametrize(
    ("order", "recognized"),
    [
        (np.arange(12).reshape(3, 4).T.ravel(), True),
        (np.arange(12).reshape(3, 4).T.ravel() - 12, True),
        (np.roll(np.arange(12), 4), False),
        (np.arange(12)[::-1].copy(), False),
    ],
    ids=["shuffle", "from behind", "rotation", "reversal"],
)
def test_channels_gathered_in_the_order_of_a_shuffle_are_one(
    order: np.ndarray, recognized: bool, graph: Build, run: Run, rng: np.random.Generator
) -> None:
    model = graph(
        """net (float[1, 12, 2, 5] x) => (float[1, 12, 2, 5] y) {
          [s] y = Gather<axis = 1>(x, order)
        }""",
        order=order.astype(np.int64),
    )
    x = rng.normal(size=(1, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)

    optimize(model, Report())

    np.testing.assert_array_equal(run(model, {"x": x})["y"], x[:, order])
    kinds = [node.op_type for node in model.graph]
    assert kinds == (["Reshape", "Transpose", "Reshape"] if recognized else ["Gather"])

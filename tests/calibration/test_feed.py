"""Two passes over the data: the second one shows what the first one did, for less work."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_ir.passes import common

from qconvert.calibration.feed import Feed
from qconvert.calibration.kept import Kept
from qconvert.dataset.reader import open_dataset
from qconvert.progress import Quiet
from qconvert.runtimes.onnx import with_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.dataset.reader import Dataset
    from qconvert.quant import F32

# `sum` is computed early from `branch`, which a late node reads too: in a graph that ends at `sum`
# onnxruntime would add within the convolution, and round in another order.
GRAPH = """net (float[1, 8, 10, 10] data) => (float[1, 8, 10, 10] out) {
    stem = Conv<pads = [1, 1, 1, 1]>(data, w1)
    branch = Conv<pads = [1, 1, 1, 1]>(stem, w2)
    sum = Add(branch, stem)
    deep = Conv<pads = [1, 1, 1, 1]>(sum, w3)
    late = Mul(deep, branch)
    relu = Relu(late)
    out = Conv<pads = [1, 1, 1, 1]>(relu, w3)
}"""
WATCHED = ("relu", "sum", "data", "w3", "late")


class Record:
    """An observer that remembers everything."""

    def __init__(self) -> None:
        self.seen: list[F32] = []

    def update(self, data: F32) -> None:
        """Keep a copy, without zeros and in one axis."""
        self.seen.append(data[data != 0].ravel().copy())

    def merge(self, other: Record) -> None:
        """Not needed here."""

    def join(self, other: Record) -> None:
        """Not needed here."""


@pytest.fixture
def model(rng: np.random.Generator) -> ir.Model:
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    weights = [
        ir.tensor(rng.normal(size=(8, 8, 3, 3)).astype(np.float32), name=name)
        for name in ("w1", "w2", "w3")
    ]
    made = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]>\n{GRAPH}', weights)
    common.ShapeInferencePass()(made)
    return made


@pytest.fixture
def data(rng: np.random.Generator, tmp_path: Path) -> Dataset:
    np.save(tmp_path / "x.npy", rng.normal(size=(4, 8, 10, 10)).astype(np.float32))
    return open_dataset(tmp_path / "x.npy", {"data": (1, 8, 10, 10)}, preprocessing=None, jobs=1)


def records() -> dict[str, Record]:
    return {name: Record() for name in WATCHED}


@pytest.mark.parametrize("room", [0, 7000, 20000, 36000, 1 << 20])
def test_a_second_pass_shows_the_same_bits(model: ir.Model, data: Dataset, room: int) -> None:
    first, second = records(), records()

    with Feed(model, WATCHED, 1, again=WATCHED, room=room) as feed:
        feed.observe(data, first, Quiet())
        feed.observe_again(data, second, Quiet())

    for name in WATCHED:
        assert len(first[name].seen) == (1 if name == "w3" else len(data)), name
        for one, other in zip(first[name].seen, second[name].seen, strict=True):
            np.testing.assert_array_equal(one, other, name)


def test_a_second_pass_may_watch_less(model: ir.Model, data: Dataset) -> None:
    first, second = records(), {"sum": Record()}

    with Feed(model, WATCHED, 1, again=["sum"], room=0) as feed:
        feed.observe(data, first, Quiet())
        feed.observe_again(data, second, Quiet())

    for one, other in zip(first["sum"].seen, second["sum"].seen, strict=True):
        np.testing.assert_array_equal(one, other)


def test_with_everything_kept_nothing_is_read_again(
    model: ir.Model, data: Dataset, tmp_path: Path
) -> None:
    with Feed(model, WATCHED, 1, again=WATCHED, room=1 << 20) as feed:
        feed.observe(data, records(), Quiet())
        (tmp_path / "x.npy").unlink()

        second = records()
        feed.observe_again(data, second, Quiet())

    assert len(second["data"].seen) == len(data)


def test_what_no_output_needs_is_not_computed(model: ir.Model) -> None:
    part = with_outputs(model, ["sum"])

    assert [node.outputs[0].name for node in part.graph] == ["stem", "branch", "sum"]
    assert set(part.graph.initializers) == {"w1", "w2"}
    assert len(list(model.graph)) == 7


SAMPLES = st.lists(st.tuples(*3 * [st.integers(0, 9)]), min_size=1, max_size=8)


@given(sizes=SAMPLES, room=st.integers(0, 400))
def test_the_deepest_values_are_kept_within_the_room(
    sizes: list[tuple[int, int, int]], room: int
) -> None:
    names = ("first", "second", "third")
    kept = Kept(names, room, len(sizes))

    for index, lengths in enumerate(sizes):
        values = {
            name: np.array([0.0, *range(1, length + 1)], np.float32)
            for name, length in zip(names, lengths, strict=True)
        }
        kept.add(str(index), values)

    assert kept.names in [frozenset(names[start:]) for start in range(4)]
    held = [kept.of(index) for index in range(len(sizes))]
    assert sum(value.nbytes for values in held for value in values.values()) <= room
    for values, lengths in zip(held, sizes, strict=True):
        for name in kept.names:
            np.testing.assert_array_equal(values[name], range(1, lengths[names.index(name)] + 1))

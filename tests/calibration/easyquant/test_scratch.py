from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from qconvert.calibration.easyquant import walk
from qconvert.calibration.easyquant.scratch import Kept, Scratch

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.calibration.easyquant.conftest import Build

BODY = "[a] h = Conv(x, w, b) [r] i = Relu(h) [p] k = Identity(i) [c] y = Conv(k, v, c)"


def test_the_search_finds_the_same_from_memory_and_from_disk(
    case: Build, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "v": (6, 4, 3, 3), "c": (6,)}
    weights = {name: rng.laplace(size=shape).astype(np.float32) for name, shape in shapes.items()}
    built = case(BODY, weights=weights)
    in_memory = built.search().encodings

    monkeypatch.setattr(walk, "Scratch", partial(Scratch, 0))
    on_disk = built.search().encodings

    assert repr(on_disk) == repr(in_memory)


def test_what_is_on_disk_has_no_name_to_be_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    room = Scratch(0).room(4, (8, 8), np.dtype(np.float32))
    room[:] = 3

    assert isinstance(room, np.memmap)
    assert list(tmp_path.iterdir()) == []


def test_room_that_is_given_back_can_be_had_again() -> None:
    scratch = Scratch(1024)
    first = Kept(scratch.room(1, (256,), np.dtype(np.float32)))
    assert isinstance(scratch.room(1, (1,), np.dtype(np.float32)), np.memmap)

    scratch.free(first)

    assert not isinstance(scratch.room(1, (256,), np.dtype(np.float32)), np.memmap)

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.errors import ModelFormatError
from qconvert.verification.reference import LIMIT, Case, load, save

if TYPE_CHECKING:
    from pathlib import Path


def case(seed: int, *inputs: str) -> Case:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=(1, 3)).astype(np.float32) for name in inputs}
    return Case(arrays, {"fire/out": rng.normal(size=(1, 2)).astype(np.float32)})


@pytest.mark.parametrize("inputs", [("data",), ("left", "right/eye")], ids=["one", "two"])
def test_cases_come_back_as_they_were(inputs: tuple[str, ...], tmp_path: Path) -> None:
    cases = [case(0, *inputs), case(1, *inputs)]

    save(tmp_path / "r.npz", cases)
    again = load(tmp_path / "r.npz", inputs)

    for before, after in zip(cases, again, strict=True):
        assert set(after.inputs) == set(inputs)
        for name in inputs:
            np.testing.assert_array_equal(after.inputs[name], before.inputs[name])
        np.testing.assert_array_equal(after.outputs["fire/out"], before.outputs["fire/out"])


def test_one_input_needs_no_name_in_its_key(tmp_path: Path) -> None:
    save(tmp_path / "r.npz", [case(0, "data")])

    with np.load(tmp_path / "r.npz") as archive:
        assert archive.files == ["input_0", "out_0::fire/out"]


def test_the_same_cases_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / name, [case(0, "data")])

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_more_than_eight_cases_are_kept(tmp_path: Path) -> None:
    save(tmp_path / "r.npz", [case(seed, "data") for seed in range(12)])

    assert len(load(tmp_path / "r.npz", ["data"])) == LIMIT


def test_every_truncation_is_refused_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    save(path, [case(0, "data")])
    whole = path.read_bytes()

    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelFormatError) as caught:
            load(path, ["data"])
        assert caught.value.at == str(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError):
        load(tmp_path / "absent.npz", ["data"])


def test_another_network_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "r.npz", [case(0, "left", "right")])

    with pytest.raises(ModelFormatError, match="not of this network"):
        load(tmp_path / "r.npz", ["data"])


def test_foreign_keys_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", weights=np.zeros(3))

    with pytest.raises(ModelFormatError, match="cannot be read"):
        load(tmp_path / "r.npz", ["data"])

"""A bundle on disk: moved, damaged, or met without its runtime."""

from __future__ import annotations

import importlib.util
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the one bundle that the tests here copy."""
    return tmp_path_factory.mktemp("bundles") / "int8"


@pytest.fixture
def bundle(kept: Path, qconvert: Command, digits: Path, tmp_path: Path) -> Path:
    """A fresh copy of an INT8 ncnn bundle of the sample."""
    if not kept.exists():
        outcome = qconvert(
            "convert", digits / "digits.prototxt", digits / "digits.caffemodel", "--to", "ncnn",
            "-o", kept, "--calib", digits / "calibration",
            "--preprocess", digits / "preprocessing.json", "--method", "minmax",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
    shutil.copytree(kept, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_may_be_moved(bundle: Path, qconvert: Command) -> None:
    place = bundle.parent / "another place" / "größer 模型"
    place.parent.mkdir()
    bundle.rename(place)

    assert qconvert("verify", place).code == 0


@pytest.mark.parametrize(
    "name",
    [
        "model.param", "model.bin", "model.table", "float.param", "float.bin", "reference.npz",
        "qconvert.toml",
    ],
)  # fmt: skip
def test_one_flipped_bit_is_found(name: str, bundle: Path, qconvert: Command) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(bytes(content))

    for command in (("verify", bundle), ("evaluate", bundle, "--data", bundle)):
        outcome = qconvert(*command, "--json")

        assert outcome.code == 7, outcome.err
        assert f"{name} was changed" in outcome.json["error"]["why"]


def test_a_missing_runtime_is_named(
    bundle: Path, qconvert: Command, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "ncnn" else find(name, *a)
    )

    outcomes = [
        qconvert("verify", bundle, "--json"),
        qconvert("convert", digits / "digits.onnx", "--to", "ncnn", "-o", bundle / "o", "--json"),
    ]

    for outcome in outcomes:
        assert outcome.code == outcome.json["error"]["exit"] == 6
        assert "pip install" in outcome.json["error"]["fix"]


@pytest.mark.parametrize("position", range(0, 4000, 131))
def test_a_damaged_manifest_is_an_error_of_ours(
    position: int, bundle: Path, qconvert: Command
) -> None:
    path = bundle / "manifest.json"
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 4
    path.write_bytes(bytes(content))

    outcome = qconvert("verify", bundle)

    assert outcome.code in {0, 3, 7}, outcome.err

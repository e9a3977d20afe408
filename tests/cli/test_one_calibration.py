"""A model calibrated once goes to every target from the same encodings file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Command

TARGETS = {"ncnn": (), "onnx": (), "raw": (), "tensorrt": ("--trt-version", "8.6.1")}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for the one encodings file that the tests here read."""
    return tmp_path_factory.mktemp("scales") / "calib.json"


@pytest.mark.parametrize("target", TARGETS)
def test_the_sample_leaves_to_every_target(
    target: str, kept: Path, digits: Path, qconvert: Command, tmp_path: Path
) -> None:
    model = (digits / "digits.prototxt", digits / "digits.caffemodel")
    images = ("--preprocess", digits / "preprocessing.json")
    if not kept.exists():
        done = qconvert(
            "calibrate", *model, *images, "--calib", digits / "calibration", "-o", kept,
            "--method", "kl",
        )  # fmt: skip
        assert done.code == 0, done.err

    done = qconvert(
        "convert", *model, *images, "--encodings", kept, "--to", target, *TARGETS[target],
        "-o", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    proved = qconvert("verify", tmp_path / "out", "--data", digits / "test", "--json")

    assert proved.code == 0, proved.err
    figures = proved.json["verification"]
    assert figures["top1_agreement"] >= 0.99
    assert all(row["cosine"] > 0.999 for row in figures["simulation"]["outputs"])


@pytest.mark.slow
def test_a_residual_network_leaves_to_every_target(
    corpus: Path, qconvert: Command, tmp_path: Path
) -> None:
    folder = corpus / "models" / "onnx_resnet20_cifar10_fp32"
    (model,) = folder.glob("*.onnx")
    data = np.load(folder / "reference.npz")
    samples = np.concatenate([data[key] for key in data.files if key.startswith("input_")])
    np.save(tmp_path / "x.npy", samples)
    done = qconvert(
        "calibrate", model, "--calib", tmp_path / "x.npy", "-o", tmp_path / "calib.json",
        "--method", "minmax",
    )  # fmt: skip
    assert done.code == 0, done.err

    for target, options in TARGETS.items():
        out = tmp_path / target
        done = qconvert(
            "convert", model, "--encodings", tmp_path / "calib.json", "--to", target, *options,
            "--calib", tmp_path / "x.npy", "-o", out,
        )  # fmt: skip
        assert done.code == 0, (target, done.err)

        proved = qconvert("verify", out, "--json")

        assert proved.code == 0, (target, proved.err)
        (row,) = proved.json["verification"]["outputs"]
        assert row["cosine"] > 0.99, (target, row)

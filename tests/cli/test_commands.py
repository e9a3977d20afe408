"""The commands on the sample network, as a user types them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Command


@pytest.fixture
def int8(qconvert: Command, digits: Path, tmp_path: Path) -> Path:
    """An INT8 ncnn bundle of the sample."""
    outcome = qconvert(
        "convert", digits / "digits.prototxt", digits / "digits.caffemodel", "--to", "ncnn",
        "-o", tmp_path / "int8", "--calib", digits / "calibration",
        "--preprocess", digits / "preprocessing.json", "--bits", "8", "--method", "kl",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    return tmp_path / "int8"


def test_convert_reports_what_it_measured(qconvert: Command, digits: Path, tmp_path: Path) -> None:
    outcome = qconvert(
        "convert", digits / "digits.caffemodel", digits / "digits.prototxt", "--to", "ncnn",
        "-o", tmp_path / "out", "--calib", digits / "calibration",
        "--preprocess", digits / "preprocessing.json", "--method", "kl", "--json",
    )  # fmt: skip

    assert outcome.code == 0, outcome.err
    document = outcome.json
    assert document["version"] == 1
    assert document["target"] == "ncnn"
    assert {"model.param", "model.bin", "model.table", "float.param", "float.bin"} <= set(
        document["files"]
    )
    assert {"name", "type", "bits", "weight_scale", "input_scale", "cosine"} <= set(
        document["layers"][0]
    )
    assert sum(row["bits"] == 8 for row in document["layers"]) == 4
    figures = document["verification"]
    assert figures["outputs"][0]["cosine"] > 0.999
    assert figures["top1_agreement"] > 0.9
    assert {"warnings", "seconds", "peak_memory_mb"} <= set(document)


def test_the_same_command_gives_the_same_bytes(int8: Path, qconvert: Command, digits: Path) -> None:
    again = int8.parent / "again"
    qconvert(
        "convert", digits / "digits.prototxt", digits / "digits.caffemodel", "--to", "ncnn",
        "-o", again, "--calib", digits / "calibration",
        "--preprocess", digits / "preprocessing.json", "--bits", "8", "--method", "kl",
    )  # fmt: skip

    names = sorted(path.name for path in int8.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert all((int8 / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_a_bundle_keeps_the_recipe_that_made_it(
    int8: Path, qconvert: Command, digits: Path
) -> None:
    again = int8.parent / "again"
    outcome = qconvert(
        "convert", "--config", int8 / "qconvert.toml", digits / "digits.prototxt",
        digits / "digits.caffemodel", "--calib", digits / "calibration", "-o", again,
    )  # fmt: skip

    assert outcome.code == 0, outcome.err
    assert (int8 / "model.bin").read_bytes() == (again / "model.bin").read_bytes()
    assert (int8 / "manifest.json").read_bytes() == (again / "manifest.json").read_bytes()


def test_verify_needs_nothing_but_the_bundle(int8: Path, qconvert: Command) -> None:
    moved = int8.parent / "elsewhere"
    shutil.move(int8, moved)

    outcome = qconvert("verify", moved, "--json")

    assert outcome.code == 0, outcome.err
    figures = outcome.json["verification"]
    assert figures["runtime"].startswith("ncnn ")
    assert figures["samples"] == 8


def test_verify_on_other_images_uses_the_bundles_preprocessing(
    int8: Path, qconvert: Command, digits: Path
) -> None:
    outcome = qconvert("verify", int8, "--data", digits / "test", "--json")

    assert outcome.code == 0, outcome.err
    assert outcome.json["verification"]["samples"] == 200
    assert outcome.json["verification"]["outputs"][0]["cosine"] > 0.999


def test_a_changed_file_is_found(int8: Path, qconvert: Command) -> None:
    content = bytearray((int8 / "model.bin").read_bytes())
    content[40] ^= 1
    (int8 / "model.bin").write_bytes(bytes(content))

    outcome = qconvert("verify", int8)

    assert outcome.code == 7
    assert "model.bin was changed" in outcome.err


def test_a_cosine_out_of_reach_fails_and_leaves_nothing(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    command = (
        "convert", digits / "digits.prototxt", digits / "digits.caffemodel", "--to", "ncnn",
        "-o", tmp_path / "out", "--calib", digits / "calibration", "--method", "minmax",
        "--preprocess", digits / "preprocessing.json", "--bits", "4", "--min-cosine", "0.99999",
    )  # fmt: skip

    failed = qconvert(*command)
    left = list(tmp_path.iterdir())
    kept = qconvert(*command, "--keep-failed")

    assert failed.code == kept.code == 7
    assert "--min-cosine" in failed.err
    assert left == []
    assert (tmp_path / "out" / "model.param").is_file()


def test_evaluate_counts_right_answers_and_agreement(
    int8: Path, qconvert: Command, digits: Path
) -> None:
    labels = digits / "test_labels.txt"
    source = qconvert(
        "evaluate", digits / "digits.prototxt", digits / "digits.caffemodel",
        "--data", digits / "test", "--labels", labels,
        "--preprocess", digits / "preprocessing.json", "--json",
    ).json  # fmt: skip
    bundle = qconvert(
        "evaluate", int8, "--data", digits / "test", "--labels", labels, "--json"
    ).json

    assert source["images"] == bundle["images"] == 200
    assert source["top1"] > 0.97
    assert source["agreement"] is None
    assert abs(bundle["top1"] - source["top1"]) < 0.02
    assert bundle["agreement"] > 0.98
    assert bundle["top5"] >= bundle["top1"]


def test_float_bundles_equal_their_source(qconvert: Command, digits: Path, tmp_path: Path) -> None:
    outcome = qconvert(
        "convert", digits / "digits.prototxt", digits / "digits.caffemodel", "--to", "ncnn",
        "-o", tmp_path / "out", "--json",
    )  # fmt: skip

    assert outcome.code == 0, outcome.err
    assert outcome.json["verification"]["outputs"][0]["cosine"] > 0.99999
    with np.load(tmp_path / "out" / "reference.npz") as reference:
        assert {"input_0", "out_0::prob"} <= set(reference.files)


def test_one_calibration_serves_later_conversions(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    found = qconvert(
        "calibrate", digits / "digits.prototxt", digits / "digits.caffemodel",
        "--calib", digits / "calibration", "--preprocess", digits / "preprocessing.json",
        "--method", "kl", "-o", tmp_path / "calib.json", "--json",
    )  # fmt: skip
    used = qconvert(
        "convert", digits / "digits.prototxt", digits / "digits.caffemodel", "--to", "ncnn",
        "-o", tmp_path / "out", "--encodings", tmp_path / "calib.json",
        "--calib", digits / "calibration", "--preprocess", digits / "preprocessing.json", "--json",
    )  # fmt: skip

    assert found.code == 0, found.err
    assert used.code == 0, used.err
    assert sum(row["bits"] == 8 for row in used.json["layers"]) == 4


def test_inspect_lists_layers_and_cost(qconvert: Command, digits: Path) -> None:
    document = qconvert("inspect", digits / "digits.prototxt", "--json").json

    assert document["inputs"] == [{"name": "data", "shape": [1, 1, 16, 16]}]
    assert document["outputs"] == [{"name": "prob", "shape": [1, 10]}]
    # Three convolutions on 16x16, 8x8 and 4x4 maps, and the classifier.
    assert document["macs"] == 256 * 16 * 9 + 64 * 32 * 144 + 16 * 32 * 288 + 512 * 10
    assert document["unsupported"]["ncnn"] == []


def test_formats_says_what_is_read_and_written(qconvert: Command) -> None:
    document = qconvert("formats", "--json").json

    assert "Convolution" in document["reads"]["caffe"]["operators"]
    assert "Conv" in document["writes"]["ncnn"]["operators"]


def test_manifests_hold_no_time_and_no_absolute_path(int8: Path) -> None:
    text = (int8 / "manifest.json").read_text()
    manifest = json.loads(text)

    assert str(int8.parent) not in text
    assert not {"seconds", "peak_memory_mb", "host", "time"} & set(manifest)
    assert set(manifest["source"]) == {"digits.prototxt", "digits.caffemodel"}


def test_a_cameras_fixed_scale_is_simulated_as_the_runtime_rounds(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    outcome = qconvert(
        "convert", digits / "digits.prototxt", digits / "digits.caffemodel", "--to", "ncnn",
        "-o", tmp_path / "out", "--calib", digits / "calibration", "--method", "minmax",
        "--size", "16x16", "--color", "gray", "--resize", "squash", "--mean", "127.5",
        "--norm", "0.0078125", "--input-scale", "data=0.0078125", "--json",
    )  # fmt: skip

    # Every pixel is (p - 127.5) / 128: halfway between two codes.
    assert outcome.code == 0, outcome.err
    simulation = outcome.json["verification"]["simulation"]["outputs"][0]
    assert simulation["cosine"] > 0.999999
    assert simulation["max_abs_error"] < 1e-4


def test_an_onnx_artifact_is_compared_layer_by_layer_too(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    outcome = qconvert(
        "convert", digits / "digits.onnx", "--to", "onnx", "-o", tmp_path / "out",
        "--calib", digits / "calibration", "--preprocess", digits / "preprocessing.json",
        "--method", "minmax", "--json",
    )  # fmt: skip

    assert outcome.code == 0, outcome.err
    steps = outcome.json["verification"]["simulation"]["layers"]
    assert steps["compared"] == 4
    assert steps["cosine"] > 0.9999

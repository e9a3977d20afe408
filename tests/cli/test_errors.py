"""Whatever a user does wrong ends in four lines and an exit code, and leaves nothing behind."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Command


@dataclass(frozen=True, slots=True)
class Damage:
    """One way to break an input.

    Attributes:
        id: What is broken.
        code: The exit code it must end with.
        says: What the message must contain.
        harm: Breaks the files in the folder.
    """

    id: str
    code: int
    says: str
    harm: Callable[[Path], None]


def _truncate(folder: Path) -> None:
    path = folder / "digits.caffemodel"
    path.write_bytes(path.read_bytes()[:2000])


def _syntax(folder: Path) -> None:
    path = folder / "digits.prototxt"
    lines = path.read_text().split("\n")
    lines[4] = "  convolution_param { num_output: 16 kernel_size: three"
    path.write_text("\n".join(lines))


def _without_weights(folder: Path) -> None:
    path = folder / "digits.prototxt"
    path.write_text(path.read_text().replace('name: "conv2"', 'name: "other"'))


def _other_count(folder: Path) -> None:
    path = folder / "digits.prototxt"
    path.write_text(path.read_text().replace("num_output: 32", "num_output: 33", 1))


def _unknown_layers(folder: Path) -> None:
    path = folder / "digits.prototxt"
    text = path.read_text().replace('type: "ReLU"', 'type: "Hyper"', 1)
    path.write_text(text.replace('type: "Softmax"', 'type: "Magic"'))


def _nan(folder: Path) -> None:
    path = folder / "digits.caffemodel"
    content = bytearray(path.read_bytes())
    start = content.index(np.float32(1.0).tobytes())  # the BatchNorm factor
    content[start : start + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(bytes(content))


def _no_images(folder: Path) -> None:
    shutil.rmtree(folder / "images")
    (folder / "images").mkdir()


def _bad_image(folder: Path) -> None:
    (folder / "images" / "050.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")


def _three_channels(folder: Path) -> None:
    (folder / "preprocessing.json").write_text(
        '{"size": [16, 16], "color": "RGB", "mean": [0, 0, 0], "norm": [1, 1, 1],'
        ' "resize": "squash"}'
    )


def _unknown_key(folder: Path) -> None:
    path = folder / "preprocessing.json"
    path.write_text(path.read_text().replace('"mean"', '"maen"'))


def _no_file(folder: Path) -> None:
    (folder / "digits.caffemodel").unlink()


DAMAGES = [
    Damage("truncated_caffemodel", 3, "digits.caffemodel", _truncate),
    Damage("prototxt_syntax", 3, "digits.prototxt:5", _syntax),
    Damage("layer_without_weights", 3, "other", _without_weights),
    Damage("weight_count", 3, "conv2", _other_count),
    Damage("unknown_layers_all_listed", 4, "Hyper", _unknown_layers),
    Damage("unknown_layers_all_listed_too", 4, "Magic", _unknown_layers),
    Damage("nan_in_weights", 3, "bn1", _nan),
    Damage("empty_image_folder", 5, "images", _no_images),
    Damage("unreadable_image", 5, "050.png", _bad_image),
    Damage("wrong_channels", 5, "channel", _three_channels),
    Damage("unknown_preprocessing_key", 5, "maen", _unknown_key),
    Damage("missing_file", 3, "digits.caffemodel", _no_file),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.id)
def test_a_broken_input_is_named_and_nothing_is_written(
    damage: Damage, qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name in ("digits.prototxt", "digits.caffemodel", "preprocessing.json"):
        shutil.copy(digits / name, work)
    shutil.copytree(digits / "calibration", work / "images")
    damage.harm(work)

    outcome = qconvert(
        "convert", work / "digits.prototxt", work / "digits.caffemodel", "--to", "ncnn",
        "-o", tmp_path / "out", "--calib", work / "images",
        "--preprocess", work / "preprocessing.json", "--method", "kl", "--json",
    )  # fmt: skip

    assert outcome.code == damage.code, outcome.err
    assert damage.says in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.json["error"]["exit"] == damage.code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["work"]


def test_images_without_preprocessing_are_refused(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    outcome = qconvert(
        "convert", digits / "digits.prototxt", digits / "digits.caffemodel", "--to", "ncnn",
        "-o", tmp_path / "out", "--calib", digits / "calibration",
    )  # fmt: skip

    assert outcome.code == 5
    assert "preprocess" in outcome.err


def test_an_output_that_is_not_empty_is_kept_unless_forced(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    command = (
        "convert", digits / "digits.prototxt", digits / "digits.caffemodel",
        "--to", "ncnn", "-o", tmp_path / "out",
    )  # fmt: skip

    refused = qconvert(*command)
    forced = qconvert(*command, "--force")
    again = qconvert(*command, "--force")

    assert refused.code == 2
    assert "--force" in refused.err
    assert forced.code == again.code == 0
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "out" / "model.param").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert",),
        ("convert", "x.onnx", "--to", "cobol", "-o", "out"),
        ("convert", "x.onnx", "-o", "out"),
        ("convert", "x.onnx", "--to", "ncnn", "-o", "out", "--bits", "9"),
        ("convert", "x.onnx", "--to", "ncnn", "-o", "out", "--input-shape", "data"),
        ("convert", "x.onnx", "--to", "ncnn", "-o", "out", "--method", "guess"),
        ("convert", "x.onnx", "--to", "ncnn", "-o", "out", "--size", "big"),
        ("nonsense",),
        ("verify",),
        ("evaluate", "x.onnx"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_exits_2_also_as_json(
    arguments: tuple[str, ...], qconvert: Command
) -> None:
    outcome = qconvert(*arguments, "--json")

    assert outcome.code == 2, outcome.err
    assert outcome.json["error"]["exit"] == 2
    assert "Traceback" not in outcome.err


def test_a_folder_that_is_no_bundle_is_refused(qconvert: Command, tmp_path: Path) -> None:
    outcome = qconvert("verify", tmp_path)

    assert outcome.code == 3
    assert "manifest.json" in outcome.err


def test_a_corrupted_picture_does_not_hide_among_good_ones(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    shutil.copytree(digits / "test", tmp_path / "images")
    Image.new("L", (8, 8)).save(tmp_path / "images" / "ok.png")
    (tmp_path / "images" / "zz.jpg").write_bytes(b"")

    outcome = qconvert(
        "evaluate", digits / "digits.prototxt", digits / "digits.caffemodel",
        "--data", tmp_path / "images", "--labels", digits / "test_labels.txt",
        "--preprocess", digits / "preprocessing.json",
    )  # fmt: skip

    assert outcome.code in {3, 5}
    assert "zz.jpg" in outcome.err or "ok.png" in outcome.err

"""Where the result goes: made when needed, left alone when something fails."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Command


def _convert(digits: Path, *more: str | Path) -> tuple[str | Path, ...]:
    """A float conversion of the sample."""
    files = (digits / "digits.prototxt", digits / "digits.caffemodel")
    return ("convert", *files, "--to", "ncnn", *more)


def test_missing_parents_are_made(qconvert: Command, digits: Path, tmp_path: Path) -> None:
    outcome = qconvert(*_convert(digits, "-o", tmp_path / "a" / "b" / "out", "-q"))

    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert (tmp_path / "a" / "b" / "out" / "manifest.json").is_file()


@pytest.mark.parametrize("command", ["convert", "calibrate"])
def test_parents_made_for_nothing_go_again(
    command: str, qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    target = ("--to", "ncnn") if command == "convert" else ()

    outcome = qconvert(
        command, digits / "digits.prototxt", digits / "digits.caffemodel", *target,
        "-o", tmp_path / "a" / "b" / "out", "--calib", tmp_path / "empty",
        "--preprocess", digits / "preprocessing.json",
    )  # fmt: skip

    assert outcome.code == 5
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("command", ["convert", "calibrate"])
@pytest.mark.parametrize("place", ["file/out", "/proc/nowhere/out"])
def test_a_place_that_cannot_be_written_is_a_wrong_command(
    command: str, place: str, qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    target = ("--to", "ncnn") if command == "convert" else ()

    outcome = qconvert(
        command, digits / "digits.prototxt", digits / "digits.caffemodel", *target,
        "-o", tmp_path / place, "--calib", digits / "calibration",
        "--preprocess", digits / "preprocessing.json", "--method", "minmax", "--json",
    )  # fmt: skip

    assert outcome.code == 2, outcome.err
    assert "cannot be written" in outcome.json["error"]["what"]


def test_scales_do_not_replace_a_folder(qconvert: Command, digits: Path, tmp_path: Path) -> None:
    outcome = qconvert(
        "calibrate", digits / "digits.prototxt", digits / "digits.caffemodel", "--force",
        "-o", tmp_path, "--calib", digits / "calibration", "--method", "minmax",
        "--preprocess", digits / "preprocessing.json",
    )  # fmt: skip

    assert outcome.code == 2
    assert "is a folder" in outcome.err


def test_the_folder_one_stands_in_is_filled(
    qconvert: Command, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    before = place.stat().st_ino
    monkeypatch.chdir(place)

    outcome = qconvert(*_convert(digits, "-o", "."))

    assert outcome.code == 0, outcome.err
    assert place.stat().st_ino == before
    assert (place / "manifest.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_only_a_failed_verification_is_kept(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert qconvert(*_convert(digits, "-o", out)).code == 0
    before = (out / "manifest.json").read_bytes()

    broken = qconvert(
        "convert", digits / "digits.prototxt", tmp_path / "missing.caffemodel", "--to", "ncnn",
        "-o", out, "--force", "--keep-failed",
    )  # fmt: skip

    assert broken.code == 3
    assert (out / "manifest.json").read_bytes() == before


def test_a_kept_bundle_has_its_figures(qconvert: Command, digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    failed = qconvert(*_convert(digits, "-o", out, "--min-cosine", "1", "--keep-failed", "--calib",
                                digits / "calibration", "--preprocess",
                                digits / "preprocessing.json", "--method", "minmax", "--bits",
                                "4"))  # fmt: skip

    assert failed.code == 7
    figures = json.loads((out / "manifest.json").read_text())["verification"]
    assert figures["outputs"][0]["cosine"] < 1
    assert qconvert("verify", out).code == 0


def test_modules_in_the_working_folder_are_not_imported(
    qconvert: Command, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ncnn.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "numpy.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)

    outcome = qconvert(*_convert(digits, "-o", tmp_path / "out"))

    assert outcome.code == 0, outcome.err


@pytest.mark.slow
def test_an_interrupt_leaves_nothing(digits: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", "from qconvert.cli import main; main()",
         *(str(word) for word in _convert(digits, "-o", tmp_path / "a" / "out")),
         "--calib", str(digits / "calibration"),
         "--preprocess", str(digits / "preprocessing.json"), "--effort", "best", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob("a/.out.*")) and time.monotonic() < deadline:
        time.sleep(0.02)

    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)

    assert child.returncode == 130, err
    assert json.loads(out)["error"]["exit"] == 130
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]
    assert list(scratch.glob("qconvert*")) == []


@pytest.mark.parametrize("named", ["model", "output"])
def test_names_that_are_not_unicode_are_refused(
    named: str, qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    odd = tmp_path / os.fsdecode(b"a\xff.onnx")
    odd.write_bytes((digits / "digits.onnx").read_bytes())
    model, output = (odd, "out") if named == "model" else (digits / "digits.onnx", f"{odd.name}.d")

    outcome = qconvert("convert", model, "--to", "onnx", "-o", tmp_path / output, "--json")

    assert outcome.code == 2, outcome.err
    assert outcome.json["error"]["what"] == "a name is not Unicode"
    assert [path.name for path in tmp_path.iterdir()] == [odd.name]


@pytest.mark.parametrize("target", ["ncnn", "onnx"])
def test_a_limit_on_the_size_of_files_is_a_full_disk(
    target: str, qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        outcome = qconvert(
            "convert", digits / "digits.onnx", "--to", target, "-o", tmp_path / "out", "--json"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert outcome.code == 2, outcome.err
    assert "make room" in outcome.json["error"]["fix"]
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_bundle(qconvert: Command, digits: Path) -> None:
    outcome = qconvert("verify", digits / "digits.onnx", "--json")

    assert outcome.code == 3
    assert outcome.json["error"]["why"] == "a bundle is a folder"

"""The Verilog sample, in Icarus Verilog, computes what the reference executor computes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.integer_programs import LINEAR_CASES, write_bundle

if TYPE_CHECKING:
    from tests.integer_programs import Linear

SAMPLES = Path(__file__).resolve().parents[3] / "samples"

pytestmark = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus Verilog is not installed"
)


def run(bundle: Path, *layers: str) -> subprocess.CompletedProcess[str]:
    """The sample's own script."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", str(SAMPLES / "rtl" / "run.sh"), str(bundle), *layers],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )


@pytest.mark.parametrize("case", LINEAR_CASES, ids=lambda case: case.id)
def test_the_engine_agrees_with_the_executor(
    case: Linear, rng: np.random.Generator, tmp_path: Path
) -> None:
    program = case.program(rng)
    expected = write_bundle(program, tmp_path, ("mem",), case.layout)

    ran = run(tmp_path)

    assert np.unique(expected).size > 4, "the case saturates"
    assert ran.stderr == ""
    assert ran.stdout.startswith(f"PASS layer: {expected.size} codes")
    assert ran.returncode == 0


def test_one_flipped_code_is_found(rng: np.random.Generator, tmp_path: Path) -> None:
    write_bundle(LINEAR_CASES[0].program(rng), tmp_path, ("mem",), "pe:8")
    flip(tmp_path / "golden" / "case_0" / "y.mem", 100)

    ran = run(tmp_path)

    assert ran.returncode == 1
    assert ran.stdout.startswith(
        "FAIL layer: 1 of 539 codes differ\n  first: channel 2, row 0, column 2"
    )


def test_a_memory_that_is_missing_is_no_pass(rng: np.random.Generator, tmp_path: Path) -> None:
    write_bundle(LINEAR_CASES[0].program(rng), tmp_path, ("mem",), "pe:8")
    (tmp_path / "mem" / "layer_weight.mem").unlink()

    ran = run(tmp_path)

    assert ran.returncode == 1
    assert "FAIL" in ran.stdout


@pytest.mark.parametrize(
    ("emit", "layout", "says"),
    [((), "pe:8", "--emit mem"), (("mem",), "ohwi", "--layout"), (("mem",), "pe:4x2", "--layout")],
)
def test_a_bundle_in_another_form_is_refused_with_the_option(
    emit: tuple[str, ...], layout: str, says: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    write_bundle(LINEAR_CASES[0].program(rng), tmp_path, emit, layout)

    ran = run(tmp_path)

    assert ran.returncode != 0
    assert says in ran.stderr


def flip(path: Path, word: int) -> None:
    """Change the lowest bit of one word of a `.mem`."""
    lines = path.read_text().split("\n")
    place = word + sum(line.startswith("//") for line in lines)
    digits = lines[place]
    lines[place] = f"{int(digits, 16) ^ 1:0{len(digits)}x}"
    path.write_text("\n".join(lines))


@pytest.mark.slow
def test_every_layer_of_the_digits_runs_in_the_simulator(digits: Path) -> None:
    ran = run(digits)

    assert [line.split(":")[0] for line in ran.stdout.splitlines()] == [
        "PASS conv1",
        "PASS conv2",
        "PASS conv3",
        "PASS fc",
    ], ran.stderr


@pytest.mark.slow
def test_one_flipped_code_of_the_digits_is_found(digits: Path) -> None:
    flip(digits / "golden" / "case_0" / "conv2.mem", 77)

    ran = run(digits, "conv2")

    assert ran.returncode == 1
    assert ran.stdout.startswith("FAIL conv2: 1 of 2048 codes differ")


@pytest.mark.slow
def test_depthwise_layers_of_a_real_network_run_in_the_simulator(
    corpus: Path, tmp_path: Path
) -> None:
    model = corpus / "models" / "onnx_mobilenet_v1_025"
    photos = sorted((corpus / "images" / "imagenet200").glob("*.jpg"))[:8]
    (tmp_path / "photos.txt").write_text("".join(f"{photo}\n" for photo in photos))
    command = [
        str(Path(sys.executable).parent / "qconvert"), "convert", str(next(model.glob("*.onnx"))),
        "--to", "raw", "-o", str(tmp_path / "raw"), "--asymmetric", "--method", "minmax",
        "--calib", str(tmp_path / "photos.txt"), "--jobs", "1", "--quiet",
        "--preprocess", str(model / "preprocessing.json"), "--emit", "mem", "--layout", "pe:8",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "raw" / "manifest.json").read_text())["layers"]
    small = [row["id"] for row in rows if row["op"] == "depthwise" and row["macs"] < 120_000]

    ran = run(tmp_path / "raw", *small)

    assert len(small) == 3
    assert [line.split(":")[0] for line in ran.stdout.splitlines()] == [
        f"PASS {name}" for name in small
    ], ran.stderr

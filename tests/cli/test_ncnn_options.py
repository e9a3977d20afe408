"""Options of the ncnn target, from the command line to the bundle."""

from __future__ import annotations

import json
import runpy
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Command


def test_the_example_in_a_bundle_gives_the_reference(
    digits: Path, tmp_path: Path, qconvert: Command
) -> None:
    bundle = tmp_path / "out"
    outcome = qconvert(
        "convert", digits / "digits.cfg", digits / "digits.weights", "--to", "ncnn", "-o", bundle,
        "--calib", digits / "calibration", "--preprocess", digits / "preprocessing.json",
        "--method", "minmax", "--shape-hints", "--ncnn-version", "20240102",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err

    made = runpy.run_path(str(bundle / "example.py"))
    pictures = [made["preprocess"](path) for path in (digits / "calibration").glob("*.png")]

    manifest = json.loads((bundle / "manifest.json").read_text())
    roles = {entry["path"]: entry["role"] for entry in manifest["files"]}
    assert roles["example.py"] == roles["example.cpp"] == "example"
    assert manifest["oldest_ncnn"]["release"] in outcome.err
    lines = (bundle / "model.param").read_text().splitlines()[2:]
    assert all(" -23330=" in line for line in lines)
    with np.load(bundle / "reference.npz") as held:
        expected = held["input_0"][0]
        given = min(pictures, key=lambda array: float(np.abs(array - expected).max()))
        assert np.abs(given - expected).max() <= 1 / 256  # one grey level
        results = made["run"](made["load"](), {made["INPUT"]: given})
        for name, array in results.items():
            np.testing.assert_allclose(array, held[f"sim_0::{name}"], atol=0.02)


def test_a_release_that_is_none_is_refused_before_long_work(
    digits: Path, tmp_path: Path, qconvert: Command
) -> None:
    for text in ("newest", "20190101"):
        outcome = qconvert(
            "convert", digits / "digits.onnx", "--to", "ncnn", "-o", tmp_path / "out",
            "--ncnn-version", text, "--json",
        )  # fmt: skip

        assert outcome.code == outcome.json["error"]["exit"] == 2
        assert not (tmp_path / "out").exists()

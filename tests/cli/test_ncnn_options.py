"""Options of the ncnn target, from the command line to the bundle."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from qconvert.backends.ncnn import backend
from qconvert.backends.ncnn.writer import write
from tests.backends.graphs import model_of

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.backends.ncnn.finish import Finished
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


@pytest.mark.parametrize("calibrated", [False, True], ids=["float", "int8"])
def test_a_layer_that_computes_something_else_is_named(
    calibrated: bool,
    digits: Path,
    tmp_path: Path,
    qconvert: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def negated(finished: Finished, folder: Path, stem: str) -> None:
        """Write the files with the second layer's weights negated."""
        if stem == "model":
            index = [i for i, buffer in enumerate(finished.buffers) if buffer.tagged][1]
            buffers = list(finished.buffers)
            buffers[index] = replace(buffers[index], data=-buffers[index].data)
            finished = replace(finished, buffers=tuple(buffers))
        write(finished, folder, stem)

    monkeypatch.setattr(backend, "write_files", negated)
    calibration = (
        "--calib", digits / "calibration", "--preprocess", digits / "preprocessing.json",
        "--method", "minmax",
    ) if calibrated else ()  # fmt: skip

    outcome = qconvert(
        "convert", digits / "digits.prototxt", digits / "digits.caffemodel", "--to", "ncnn",
        "-o", tmp_path / "out", "--json", *calibration,
    )  # fmt: skip

    assert outcome.code == 7
    departure = outcome.json["departure"]
    assert "'relu2'" in departure["layer"] or "'conv2'" in departure["layer"]
    assert departure["layer"] in outcome.json["error"]["why"]
    assert departure["wanted"]["mean"] != departure["given"]["mean"]
    assert not (tmp_path / "out").exists()


def test_the_runtime_is_measured_as_deployed_too(
    digits: Path, tmp_path: Path, qconvert: Command
) -> None:
    outcome = qconvert(
        "convert", digits / "digits.onnx", "--to", "ncnn", "-o", tmp_path / "out", "--json"
    )
    again = qconvert("verify", tmp_path / "out", "--json")

    for document in (outcome.json, again.json):
        second = document["verification"]["as_deployed"]
        assert second["runtime"].endswith("with fp16")
        assert second["outputs"][0]["cosine"] > 0.999
    assert "as deployed" in outcome.err


def test_size_work_time_and_sums_are_told_and_time_stays_out_of_the_bundle(
    digits: Path, tmp_path: Path, qconvert: Command
) -> None:
    bundle = tmp_path / "out"
    outcome = qconvert(
        "convert", digits / "digits.onnx", "--to", "ncnn", "-o", bundle, "--method", "minmax",
        "--calib", digits / "calibration", "--preprocess", digits / "preprocessing.json", "--json",
    )  # fmt: skip

    numbers = outcome.json["numbers"]
    sizes = {p.name: p.stat().st_size for p in bundle.iterdir()}
    assert numbers["bytes"]["model"] == sizes["model.param"] + sizes["model.bin"]
    assert numbers["bytes"]["float"] == sizes["float.param"] + sizes["float.bin"]
    assert numbers["cost"]["model"]["integer_macs"] == numbers["cost"]["model"]["macs"] > 0
    assert numbers["latency_ms"]["model"] > 0
    assert "latency" not in (bundle / "manifest.json").read_text()
    integer = [row for row in outcome.json["layers"] if row["bits"] == 8]
    assert all(row["products_in_int16"] >= 2 for row in integer)
    largest = max(row["largest_accumulator"] for row in integer)
    assert f"largest possible sum {largest}" in outcome.err
    assert "ms (float" in outcome.err


def test_a_network_of_steps_alone_is_quantized(
    rng: np.random.Generator, tmp_path: Path, qconvert: Command
) -> None:
    model = model_of(
        """g (float[1, 9, 6] x) => (float[] y) {
          t = Transpose<perm = [1, 0, 2]>(x)
          [cell] y = LSTM<hidden_size = 5>(t, w, r)
        }""",
        w=rng.normal(size=(1, 20, 6)).astype(np.float32),
        r=rng.normal(size=(1, 20, 5)).astype(np.float32),
    )
    ir.save(model, tmp_path / "steps.onnx")
    np.savez(tmp_path / "calib.npz", x=rng.normal(size=(4, 9, 6)).astype(np.float32))

    outcome = qconvert(
        "convert", tmp_path / "steps.onnx", "--to", "ncnn", "-o", tmp_path / "out",
        "--calib", tmp_path / "calib.npz", "--json",
    )  # fmt: skip

    assert outcome.code == 0, outcome.err
    rows = {row["name"]: row for row in outcome.json["layers"]}
    assert rows["cell"]["bits"] == 8
    assert outcome.json["verification"]["simulation"]["outputs"][0]["cosine"] > 0.999
    inspected = qconvert("inspect", tmp_path / "steps.onnx", "--to", "ncnn", "--json")
    assert inspected.json["integers"]["cell"] == "int8 weights"


def test_a_model_of_indices_is_converted_and_used(
    rng: np.random.Generator, tmp_path: Path, qconvert: Command
) -> None:
    model = model_of(
        "g (int64[1, 9] ids) => (float[] y) { e = Gather(table, ids) y = Relu(e) }",
        table=rng.normal(size=(30, 8)).astype(np.float32),
    )
    ir.save(model, tmp_path / "lookup.onnx")
    bundle = tmp_path / "out"

    outcome = qconvert("convert", tmp_path / "lookup.onnx", "--to", "ncnn", "-o", bundle)
    assert outcome.code == 0, outcome.err
    assert qconvert("verify", bundle).code == 0

    made = runpy.run_path(str(bundle / "example.py"))
    assert made["INDICES"] == ("ids",)
    with np.load(bundle / "reference.npz") as held:
        bits = held["input_0"][0].astype(np.int32).view(np.float32)
        results = made["run"](made["load"](), {"ids": bits})
        np.testing.assert_array_equal(results["y"], held["out_0::y"])

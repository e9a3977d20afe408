"""`inspect --to TARGET`: what a target will make of a model, before anything is converted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Command

NET = """<ir_version: 10, opset_import: ["" : 21]>
g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y, float[1, 4, 8, 8] z) {
  [conv1] a = Conv (x, w)
  [bn1] n = BatchNormalization (a, s, b, m, v)
  [relu1] r = Relu (n)
  [conv2] c = Conv (r, w)
  [tanh] t = Tanh (c)
  [conv3] y = Conv (t, w)
  [bn3] z = BatchNormalization (y, s, b, m, v)
}"""


@pytest.fixture
def net(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A model with a shared weight, one BatchNormalization that folds and one that cannot."""
    w = rng.normal(size=(4, 4, 1, 1)).astype(np.float32)
    numbers = {key: np.ones(4, np.float32) for key in "sbmv"}
    tensors = [ir.tensor(array, name=name) for name, array in {"w": w, **numbers}.items()]
    model = ir.from_onnx_text(NET, tensors)
    common.ShapeInferencePass()(model)
    ir.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.fixture
def wide(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Data whose values lie orders of magnitude apart."""
    x = rng.normal(size=(4, 4, 8, 8)) * np.exp(3 * rng.normal(size=(4, 4, 8, 8)))
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    return tmp_path / "x.npy"


def test_each_operator_has_its_word(net: Path, qconvert: Command) -> None:
    outcome = qconvert(
        "inspect", net, "--no-simplify", "--to", "ncnn", "--float", "conv3", "--json"
    )

    assert outcome.code == 0, outcome.err
    integers = outcome.json["integers"]
    assert integers["conv1"] == "int8"
    assert integers["relu1"] == "within 'conv1'"
    assert integers["tanh"] == "float: ncnn has no integer Tanh"
    assert integers["conv3"] == "float: the user keeps it in float (--float conv3)"
    check = outcome.json["check"]
    assert check["shared_weights"] == []  # conv1 took in its BatchNormalization
    assert [(f["nodes"], f["why_not"]) for f in check["fusions"]] == [
        (["conv1", "relu1"], None),
        (["conv2", "tanh"], "ncnn has no such operator"),
    ]
    assert check["too_wide"] is None
    assert "fold_batchnorm: 'bn1'" in outcome.json["notes"]


def test_the_screen_says_what_failed_and_why(net: Path, qconvert: Command) -> None:
    outcome = qconvert("inspect", net, "--no-simplify", "--to", "ncnn")

    for line in (
        "float, because ncnn has no integer Tanh: tanh",
        "not folded: fold_batchnorm: 'bn3' stays:",
        "not fused: Conv + Tanh at 'tanh': ncnn has no such operator",
        "shared: 'w' by conv2, conv3",
    ):
        assert line in outcome.err


@pytest.mark.parametrize(
    ("target", "fix"), [("ncnn", "--float 'conv1'"), ("onnx", "--layer-bits 'conv1=16'")]
)
def test_values_too_wide_for_their_codes_are_named_with_a_way_out(
    target: str, fix: str, net: Path, wide: Path, qconvert: Command
) -> None:
    arguments = ("inspect", net, "--no-simplify", "--to", target, "--calib", wide)

    outcome = qconvert(*arguments, "--json")
    shown = qconvert(*arguments)

    worst = outcome.json["check"]["too_wide"][0]
    assert (worst["tensor"], worst["bits"], worst["fix"]) == ("x", 8, fix)
    assert worst["lost"] > 0.5 or worst["snr_db"] < 25
    assert fix in shown.err.replace("\n", " ")


def test_the_way_out_helps(net: Path, wide: Path, qconvert: Command) -> None:
    outcome = qconvert(
        "inspect", net, "--no-simplify", "--to", "onnx", "--calib", wide, "--bits", "16", "--json"
    )

    assert outcome.json["check"]["too_wide"] == []
    assert (
        "fits"
        in qconvert(
            "inspect", net, "--no-simplify", "--to", "onnx", "--calib", wide, "--bits", "16"
        ).err
    )


def test_distributions_are_measured_for_a_target(net: Path, wide: Path, qconvert: Command) -> None:
    outcome = qconvert("inspect", net, "--calib", wide)

    assert outcome.code == 2
    assert "--to" in outcome.err


def test_the_check_plans_as_the_conversion_does(
    net: Path, wide: Path, qconvert: Command, tmp_path: Path
) -> None:
    options = ("--no-simplify", "--to", "onnx", "--first-layer", "float", "--layer-bits", "conv3=6")
    checked = qconvert("inspect", net, *options, "--json").json["integers"]

    done = qconvert(
        "convert", net, *options, "--calib", wide, "-o", tmp_path / "out", "--method", "minmax",
        "--json",
    )  # fmt: skip

    assert done.code == 0, done.err
    bits = {row["name"]: row["bits"] for row in done.json["layers"]}
    assert bits == {"conv1": 32, "conv2": 8, "conv3": 6}
    assert checked["conv1"].startswith("float: the user keeps it in float (--first-layer)")
    assert (checked["conv2"], checked["conv3"]) == ("int8", "int6")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {"step": "fold_batchnorm", "node": "bn1"} in manifest["passes"]
    assert {"step": "separate_weights", "node": "conv3"} in manifest["passes"]
    declined = [note for note in manifest["passes"] if note["node"] == "bn3"]
    assert all(note["why_not"] for note in declined)
    assert declined


def test_a_model_that_comes_quantized_is_checked_as_it_comes(
    net: Path, wide: Path, qconvert: Command, tmp_path: Path
) -> None:
    done = qconvert(
        "convert", net, "--no-simplify", "--to", "onnx", "--calib", wide, "-o", tmp_path / "out",
        "--method", "minmax", "--float", "conv3",
    )  # fmt: skip
    assert done.code == 0, done.err

    outcome = qconvert("inspect", tmp_path / "out" / "model.qdq.onnx", "--to", "ncnn", "--json")

    assert outcome.code == 0, outcome.err
    integers = outcome.json["integers"]
    assert (integers["conv1"], integers["conv2"]) == ("int8", "int8")
    assert integers["conv3"] == "float: the model has no codes for its weight"

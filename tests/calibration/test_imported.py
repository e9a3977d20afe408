"""Encodings of other tools, completed for a plan."""

from __future__ import annotations

import json
import logging
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from qconvert.calibration.imported import load
from qconvert.calibration.settings import Settings
from qconvert.errors import CalibrationError, ModelFormatError, QconvertError
from qconvert.formats.encodings import write_encodings
from qconvert.plan import ActivationSpec, Plan, PlannedLayer
from qconvert.quant import Encodings, symmetric
from qconvert.report import Report

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.quant import F32

GRAPH = """<ir_version: 10, opset_import: ["" : 21]>
net (float[1, 2, 4, 4] data) => (float[1, 4, 2, 2] out) {
    conv1 = Conv(data, w1)
    relu1 = Relu(conv1)
    pool1 = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(relu1)
    a = Conv<group = 2>(pool1, w2)
    b = Conv<group = 4>(pool1, w3)
    out = Add(a, b)
}"""
LAYERS = (
    PlannedLayer("conv1", "Conv", "data", "conv1", "w1", 0),
    PlannedLayer("left", "Conv", "pool1", "a", "w2", 0, granularity="group", groups=2),
    PlannedLayer("right", "Conv", "pool1", "b", "w3", 0, granularity="group", groups=4),
)
PLAN = Plan("ncnn", LAYERS, {"data": ActivationSpec(), "pool1": ActivationSpec()})
TABLE = """conv1_param_0 10 20 40 inf
left_param_0 30 60
right_param_0 1 2 3 4
conv1 127
left 63.5
right 31.75
"""


@pytest.fixture
def weights(rng: np.random.Generator) -> dict[str, F32]:
    return {
        "w1": rng.normal(size=(4, 2, 1, 1)).astype(np.float32),
        "w2": rng.normal(size=(4, 2, 1, 1)).astype(np.float32),
        "w3": rng.normal(size=(4, 1, 1, 1)).astype(np.float32),
    }


def read(
    text: str,
    weights: dict[str, F32],
    folder: Path,
    plan: Plan = PLAN,
    report: Report | None = None,
) -> Encodings:
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    model = ir.from_onnx_text(GRAPH, [ir.tensor(w, name=name) for name, w in weights.items()])
    common.ShapeInferencePass()(model)
    path = folder / "given"
    path.write_text(text)
    return load(path, model, plan, Settings(), report or Report())


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"act_quant_info": {"data": 127.0, "relu1": 254.0}}),
        json.dumps({"tensorrt": {"blob_range": {"data": 127.0, "conv1": 254.0}}}),
        "TRT-8601-EntropyCalibration2\ndata: {}\nconv1: {}\n".format(
            struct.pack(">f", 1.0).hex(), struct.pack(">f", 2.0).hex()
        ),
    ],
    ids=["ppq", "mqbench", "tensorrt"],
)
def test_ranges_pass_through_operators_and_weights_are_completed(
    text: str, weights: dict[str, F32], tmp_path: Path
) -> None:
    found = read(text, weights, tmp_path)

    assert found.activations["data"].scale == 1.0
    assert found.activations["pool1"].scale == 2.0
    np.testing.assert_array_equal(
        found.weights["w1"].scale, symmetric(np.abs(weights["w1"]).max((1, 2, 3)), axis=0).scale
    )


def test_an_ncnn_table_holds_reciprocals_by_layer(weights: dict[str, F32], tmp_path: Path) -> None:
    report = Report()

    found = read(TABLE, weights, tmp_path, report=report)

    assert found.activations["data"].scale == np.float32(1 / 127)
    # Two layers read pool1: the wider range wins, and that is said.
    assert found.activations["pool1"].scale == np.float32(1 / 31.75)
    assert "pool1" in report.warnings[0]
    np.testing.assert_allclose(found.weights["w1"].scale[:3], [0.1, 0.05, 0.025])
    assert found.weights["w1"].scale[3] == np.float32(np.abs(weights["w1"][3]).max() / 127)
    np.testing.assert_allclose(found.weights["w2"].scale, np.repeat([1 / 30, 1 / 60], 2))


def test_narrow_tables_keep_their_step(weights: dict[str, F32], tmp_path: Path) -> None:
    narrow = replace(PLAN, activations=dict.fromkeys(PLAN.activations, ActivationSpec(bits=7)))

    found = read(TABLE, weights, tmp_path, narrow)

    assert found.activations["data"].scale == pytest.approx(1 / 127)
    assert found.activations["data"].threshold == pytest.approx(63 / 127)


def test_a_fixed_scale_overrides_the_file(weights: dict[str, F32], tmp_path: Path) -> None:
    fixed = dict(PLAN.activations) | {"data": ActivationSpec(fixed_scale=0.25)}

    found = read(TABLE, weights, tmp_path, replace(PLAN, activations=fixed))

    assert found.activations["data"].scale == 0.25


def test_our_own_file_comes_as_it_is(weights: dict[str, F32], tmp_path: Path) -> None:
    write_encodings(tmp_path / "own.json", Encodings({"data": symmetric(3.0)}))

    found = read((tmp_path / "own.json").read_text(), weights, tmp_path)

    assert list(found.activations) == ["data"]


@dataclass(frozen=True)
class Wrong:
    id: str
    text: str
    error: type[QconvertError]
    words: str


WRONG = [
    Wrong("missing_layer", TABLE.replace("left 63.5\n", ""), CalibrationError, "left"),
    Wrong("missing_range", '{"act_quant_info": {"data": 1}}', CalibrationError, "pool1"),
    Wrong("weight_count", TABLE.replace("30 60", "30 60 90"), CalibrationError, "3 weight scales"),
    Wrong("input_inf", TABLE.replace("left 63.5", "left inf"), CalibrationError, "'left'"),
    Wrong("input_zero", TABLE.replace("left 63.5", "left 0"), CalibrationError, "'left'"),
    Wrong("input_tiny", TABLE.replace("left 63.5", "left 1e-320"), CalibrationError, "'left'"),
    Wrong("input_huge", TABLE.replace("left 63.5", "left 1e300"), CalibrationError, "'left'"),
    Wrong("input_twice", TABLE.replace("left 63.5", "left 1 2"), CalibrationError, "'left'"),
    Wrong("prose", "dear reader, this is a text", ModelFormatError, "not a number"),
    Wrong("torn_json", '{"act_quant_info": {', ModelFormatError, "cannot be read"),
    Wrong("half_text", '{"x": "\\ud800"}', ModelFormatError, "half a character"),
    Wrong("infinite", '{"act_quant_info": {"data": 1e999}}', ModelFormatError, "not a finite"),
    Wrong("deep_json", '{"x": ' + "[" * 100_000, ModelFormatError, "nested too deeply"),
    Wrong("other_json", '{"x": 1}', ModelFormatError, "no encodings"),
    Wrong("empty", "", CalibrationError, "conv1, left, right"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.id)
def test_files_that_do_not_fit_are_refused_by_name(
    case: Wrong, weights: dict[str, F32], tmp_path: Path
) -> None:
    with pytest.raises(case.error) as error:
        read(case.text, weights, tmp_path)

    assert case.words in str(error.value)


def test_binary_is_refused(weights: dict[str, F32], tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"\xff\xfe\x00")
    model = ir.from_onnx_text(GRAPH, [ir.tensor(w, name=name) for name, w in weights.items()])

    with pytest.raises(ModelFormatError, match="cannot be read"):
        load(path, model, PLAN, Settings(), Report())


def test_observed_values_are_filled_in_where_the_file_knows_them(
    weights: dict[str, F32], tmp_path: Path
) -> None:
    spec = ActivationSpec()
    observed = replace(PLAN, observed={"relu1": spec, "a": spec, "out": spec})
    text = json.dumps({"act_quant_info": {"data": 127.0, "conv1": 254.0, "out": 381.0}})

    found = read(text, weights, tmp_path, observed)

    assert found.activations["relu1"].scale == 2.0
    assert found.activations["out"].scale == 3.0
    assert "a" not in found.activations


def test_what_belongs_to_no_tensor_is_listed(weights: dict[str, F32], tmp_path: Path) -> None:
    report = Report()
    ranges = {"data": 127.0, "conv1": 254.0, "(Unnamed Layer* 3) [Shuffle]_output": 1.0, "x": 2.0}

    read(json.dumps({"act_quant_info": ranges}), weights, tmp_path, report=report)

    (warning,) = report.warnings
    assert "2 of 4 ranges" in warning
    assert warning.endswith("(Unnamed Layer* 3) [Shuffle]_output, x")


def test_our_ranges_keep_their_scales_to_the_bit(
    weights: dict[str, F32], tmp_path: Path, rng: np.random.Generator
) -> None:
    scales = np.exp(rng.uniform(-12, 4, 2)).astype(np.float32)
    tensors = {
        name: {"scale": float(str(scale)), "amax": 0.0, "quantized": True}
        for name, scale in zip(("data", "pool1"), scales, strict=True)
    }
    document = {"format": "qconvert.ranges", "version": 1, "tensors": tensors}

    found = read(json.dumps(document), weights, tmp_path)

    assert [found.activations[name].scale for name in tensors] == scales.tolist()

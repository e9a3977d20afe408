from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from qconvert.errors import CalibrationError, VerificationError
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.verification.verify import (
    Comparison,
    classifier_output,
    compare,
    detection_outputs,
)
from tests.verification.stubs import Function, Listener

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.quant import F32

SCALED = """
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[1, 4] x) => (float[1, 4] prob, float[1, 4] y)
<float[1] factor = {FACTOR}>
{{
   y = Mul (x, factor)
   prob = Softmax <axis = 1> (y)
}}
"""


def network(factor: float) -> OnnxRuntime:
    text = SCALED.replace("{FACTOR}", f"{{{factor}}}").replace("{{", "{").replace("}}", "}")
    return OnnxRuntime(ir.from_onnx_text(text), threads=1)


def test_a_network_equals_itself(rng: np.random.Generator) -> None:
    samples = [{"x": rng.normal(size=(1, 4)).astype(np.float32)} for _ in range(5)]

    result = compare(network(1.0), network(1.0), samples)

    assert result.samples == 5
    assert list(result.outputs) == ["prob", "y"]
    assert result.outputs["y"].cosine == pytest.approx(1.0)
    assert result.outputs["y"].max_abs_error == 0.0
    assert result.top1_agreement == 1.0


def test_figures_of_a_scaled_network_are_known(rng: np.random.Generator) -> None:
    samples = [{"x": rng.normal(size=(1, 4)).astype(np.float32)} for _ in range(5)]

    result = compare(network(1.0), network(1.1), samples)

    assert result.outputs["y"].cosine == pytest.approx(1.0)
    assert result.outputs["y"].snr_db == pytest.approx(20.0, abs=1e-3)
    largest = max(float(np.abs(sample["x"]).max()) for sample in samples)
    assert result.outputs["y"].max_abs_error == pytest.approx(0.1 * largest, rel=1e-4)
    assert result.top1_agreement == 1.0


def test_a_network_turned_round_never_agrees(rng: np.random.Generator) -> None:
    samples = [{"x": rng.normal(size=(1, 4)).astype(np.float32)} for _ in range(5)]

    result = compare(network(1.0), network(-1.0), samples)

    assert result.outputs["y"].cosine == pytest.approx(-1.0)
    assert result.top1_agreement == 0.0


def test_the_json_has_the_promised_keys_and_no_infinity() -> None:
    result = compare(network(1.0), network(1.0), [{"x": np.ones((1, 4), np.float32)}])

    document = json.loads(json.dumps(result.to_json(), allow_nan=False))

    assert set(document) == {"runtime", "samples", "outputs", "top1_agreement"}
    assert document["runtime"].startswith("onnxruntime ")
    assert document["outputs"][1] == {
        "name": "y",
        "cosine": pytest.approx(1.0),
        "snr_db": None,
        "max_abs_error": 0.0,
    }


def one(array: F32) -> Function:
    return Function(lambda _: {"out": array})


def test_samples_are_taken_one_at_a_time_and_progress_is_told() -> None:
    listener = Listener()
    given = iter([{"x": np.zeros(1, np.float32)}] * 3)
    same = one(np.ones((1, 3, 2, 2), np.float32))

    compare(same, same, given, progress=listener, total=3)

    assert listener.events == ["Verifying 3", "", "", "", "end"]
    assert next(given, None) is None


def test_progress_ends_when_a_runtime_fails() -> None:
    def die(_: Mapping[str, F32]) -> dict[str, F32]:
        raise VerificationError("ncnn died on the model")

    listener = Listener()
    with pytest.raises(VerificationError, match="died"):
        compare(one(np.ones(1, np.float32)), Function(die), [{}], progress=listener)

    assert listener.events[-1] == "end"


def test_no_sample_is_an_error() -> None:
    same = one(np.ones(1, np.float32))
    with pytest.raises(CalibrationError, match="nothing to verify"):
        compare(same, same, [])


def test_a_missing_output_is_named() -> None:
    with pytest.raises(VerificationError, match="no output 'out'"):
        compare(one(np.ones(1, np.float32)), Function(lambda _: {}), [{}])


def test_another_shape_is_named() -> None:
    with pytest.raises(VerificationError) as caught:
        compare(one(np.ones((1, 3), np.float32)), one(np.ones((1, 4), np.float32)), [{}])

    assert "[1, 4]" in str(caught.value)
    assert "[1, 3]" in str(caught.value)


def test_layouts_of_one_size_are_the_same_output() -> None:
    result = compare(one(np.ones((1, 3, 1, 1), np.float32)), one(np.ones((1, 3), np.float32)), [{}])

    assert result.top1_agreement == 1.0


def test_detections_are_compared_as_sets() -> None:
    dog, car = [2, 0.9, 0.1, 0.1, 0.4, 0.5], [7, 0.8, 0.5, 0.2, 0.9, 0.4]
    reference = np.asarray([[0, *dog], [0, *car]], np.float32).reshape(1, 1, 2, 7)
    candidate = np.asarray([car, dog], np.float32)

    result = compare(one(reference), one(candidate), [{}], detections={"out"})

    assert result.outputs["out"].max_abs_error == 0.0
    assert result.top1_agreement is None


def test_a_nan_in_the_artifact_gives_null_figures_and_no_agreement() -> None:
    comparison = Comparison()
    good, bad = (np.asarray([[first, 2.0]], np.float32) for first in (1.0, math.nan))
    comparison.add({"out": good}, {"out": bad})

    result = comparison.result("ncnn")

    assert result.outputs["out"].cosine is None
    assert result.top1_agreement == 0.0


def test_outputs_of_unknown_length_are_detections() -> None:
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[1, 6] x) => (float[1, 6] y, float[K, 6] boxes, float[K, 4] rows)
        { y = Relu (x)  boxes = Relu (x)  rows = Relu (x) }
    """)

    assert detection_outputs(model) == {"boxes"}


def softmax(*values: float) -> F32:
    e = np.exp(np.asarray(values, dtype=np.float32))
    return np.asarray(e / e.sum(), dtype=np.float32).reshape(1, -1)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"logits": np.zeros((1, 10), np.float32)}, "logits"),
        ({"map": np.zeros((1, 10, 1, 1), np.float32)}, "map"),
        ({"map": np.zeros((1, 10, 2, 1), np.float32)}, None),
        ({"scalar": np.zeros((1, 1), np.float32)}, None),
        ({"flat": np.zeros((10,), np.float32)}, None),
        ({"box": np.ones((1, 4), np.float32), "prob": softmax(1, 2)}, "prob"),
        ({"left": np.ones((1, 2), np.float32), "right": np.ones((1, 2), np.float32)}, None),
        ({"aux": softmax(1, 2, 3), "main": softmax(3, 2, 1), "gate": softmax(1, 2)}, "main"),
    ],
    ids=["logits", "map", "image", "scalar", "no_batch", "face", "landmarks", "auxiliary"],
)
def test_the_classifier_among_the_outputs(outputs: dict[str, F32], expected: str | None) -> None:
    assert classifier_output(outputs) == expected

"""The TensorRT target from the command line, bundles and other tools' files included."""

from __future__ import annotations

import importlib.util
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from tests.frontends.darknet import nets

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Command


@dataclass(frozen=True)
class Wrong:
    id: str
    arguments: tuple[str, ...]
    code: int
    words: str


WRONG = [
    Wrong("no_version", (), 2, "--trt-version is missing"),
    Wrong("malformed", ("--trt-version", "latest"), 2, "is not a version"),
    Wrong("unknown", ("--trt-version", "3.0.4"), 2, "5 to 11"),
    Wrong("cache_for_11", ("--trt-version", "11.0", "--emit", "ppq,cache"), 2, "calibrators"),
    Wrong("seven_bits", ("--trt-version", "8.6.1", "--bits", "7"), 2, "has no 7-bit"),
    Wrong("sixteen_bits", ("--trt-version", "8.6.1", "--layer-bits", "conv*=16"), 2, "--float"),
    Wrong("asymmetric", ("--trt-version", "8.6.1", "--asymmetric"), 2, "--asymmetric"),
    Wrong("unsigned", ("--trt-version", "8.6.1", "--activation-type", "uint8"), 2, "uint8"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.id)
def test_requests_that_tensorrt_cannot_meet_are_refused(
    case: Wrong, qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    outcome = qconvert(
        "convert", digits / "digits.onnx", "--to", "tensorrt", *case.arguments,
        "--calib", digits / "calibration", "--preprocess", digits / "preprocessing.json",
        "-o", tmp_path / "out",
    )  # fmt: skip

    assert outcome.code == case.code
    assert case.words in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()


def convert(
    qconvert: Command, digits: Path, output: Path, *arguments: str | Path, data: bool = True
) -> dict[str, object]:
    """Convert the sample's ONNX model; the JSON object."""
    calib = (
        ("--calib", digits / "calibration", "--preprocess", digits / "preprocessing.json")
        if data
        else ()
    )
    outcome = qconvert(
        "convert", digits / "digits.onnx", "--to", "tensorrt", *arguments, *calib,
        "--method", "minmax", "--json", "-o", output,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    return outcome.json


@pytest.mark.parametrize("version", ["6.0.1", "8.6.1"])
def test_a_bundle_verifies_again(
    version: str, qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    document = convert(qconvert, digits, tmp_path / "out", "--trt-version", version)

    outcome = qconvert("verify", tmp_path / "out", "--json")

    assert outcome.code == 0, outcome.err
    verification = outcome.json["verification"]
    assert verification["lint"] == []
    assert verification["simulation"]["outputs"][0]["cosine"] > 0.9999
    assert verification["top1_agreement"] == 1.0
    assert str(document["commands"][0]).startswith("trtexec --onnx=model.")  # type: ignore[index]  # a list of texts


def test_a_cache_that_was_edited_is_noticed(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    convert(qconvert, digits, tmp_path / "out", "--trt-version", "8.6.1")
    cache = tmp_path / "out" / "calibration.cache"
    cache.write_text(cache.read_text().replace("TRT-8601", "TRT-8602"))

    outcome = qconvert("verify", tmp_path / "out")

    assert outcome.code == 7
    assert "calibration.cache was changed" in outcome.err


@pytest.mark.parametrize(
    "name", ["calibration.cache", pytest.param("ranges.json", marks=pytest.mark.slow)]
)
def test_ranges_come_back_for_the_next_version(
    name: str, qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "old", tmp_path / "new"
    convert(qconvert, digits, first, "--trt-version", "10.3.0")

    document = convert(
        qconvert, digits, second, "--encodings", first / name, "--trt-version", "11.0", data=False
    )

    assert "calibration.cache" not in {path.name for path in second.iterdir()}
    assert _scales(second) == pytest.approx(_scales(first), rel=1e-6)
    warnings = document["warnings"]
    assert isinstance(warnings, list)
    assert any("random numbers" in warning for warning in warnings)
    # The bundle names tensors that the source file has not: the reshapes around the last layer.
    assert any("belong to no tensor" in warning and "/map" in warning for warning in warnings)


def _scales(bundle: Path) -> dict[str, float]:
    """Tensor → scale of the pairs of a bundle's Q/DQ model."""
    graph = onnx.load(bundle / "model.qdq.onnx").graph
    held = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    return {
        node.input[0]: float(held[node.input[1]])
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in held
    }


def test_a_foreign_cache_is_completed_and_its_strangers_are_listed(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    convert(qconvert, digits, tmp_path / "old", "--trt-version", "8.6.1")
    old = (tmp_path / "old" / "calibration.cache").read_text().splitlines()
    # As TensorRT prints it: no padding, layers of its own, and activations behind Relu alone.
    kept = [old[0], "(Unnamed Layer* 7) [Shuffle]_output: 3b1d2330", "ghost: 0"]
    for row in old[1:]:
        name, digits_ = row.split(": ")
        if "pool" not in name:
            kept.append(f"{name}: {digits_.lstrip('0')}")
    (tmp_path / "theirs.cache").write_text("\n".join(kept) + "\n")

    document = convert(
        qconvert, digits, tmp_path / "new", "--encodings", tmp_path / "theirs.cache",
        "--trt-version", "11.0", data=False,
    )  # fmt: skip

    assert _scales(tmp_path / "new") == _scales(tmp_path / "old")
    warnings = document["warnings"]
    assert isinstance(warnings, list)
    assert any("(Unnamed Layer* 7) [Shuffle]_output" in warning for warning in warnings)


def test_a_cache_without_a_needed_tensor_names_it(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    scale = struct.pack(">f", 0.01).hex()
    (tmp_path / "poor.cache").write_text(f"TRT-8601-EntropyCalibration2\nnothing: {scale}\n")

    outcome = qconvert(
        "convert", digits / "digits.onnx", "--to", "tensorrt", "--trt-version", "11.0",
        "--encodings", tmp_path / "poor.cache", "-o", tmp_path / "out",
    )  # fmt: skip

    assert outcome.code == 5
    assert "data" in outcome.err


@pytest.mark.slow
def test_a_foreign_model_is_linted(qconvert: Command, digits: Path, tmp_path: Path) -> None:
    convert(qconvert, digits, tmp_path / "out", "--trt-version", "10.3.0")
    model = onnx.load(tmp_path / "out" / "model.qdq.onnx")
    for tensor in model.graph.initializer:
        if tensor.name.endswith("zero_point") and tensor.dims == []:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(5, np.int8), tensor.name))
    onnx.save(model, tmp_path / "foreign.onnx")

    outcome = qconvert("inspect", tmp_path / "foreign.onnx", "--to", "tensorrt", "--json")

    assert outcome.code == 0, outcome.err
    assert any("its zero point is not 0" in finding for finding in outcome.json["lint"])


@pytest.mark.slow
def test_a_quantized_model_needs_no_data(qconvert: Command, digits: Path, tmp_path: Path) -> None:
    convert(qconvert, digits, tmp_path / "first", "--trt-version", "10.3.0")

    outcome = qconvert(
        "convert", tmp_path / "first" / "model.qdq.onnx", "--to", "tensorrt",
        "--trt-version", "8.6.1", "-o", tmp_path / "second", "--json",
    )  # fmt: skip

    assert outcome.code == 0, outcome.err
    scales = [sorted(_scales(tmp_path / name).values()) for name in ("first", "second")]
    assert scales[0] == scales[1]
    assert {row["bits"] for row in outcome.json["layers"]} == {8}


def test_an_engine_needs_tensorrt(qconvert: Command, digits: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed")
    convert(qconvert, digits, tmp_path / "out", "--trt-version", "10.3.0")

    outcome = qconvert("verify", tmp_path / "out", "--engine")

    assert outcome.code == 6
    assert "TensorRT is not installed" in outcome.err


@pytest.mark.slow
def test_dialects_of_other_tools_are_written_on_request(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    emit = ("--emit", "ppq,mqbench", "--emit", "nvdla")
    first, second = tmp_path / "first", tmp_path / "second"

    document = convert(qconvert, digits, first, "--trt-version", "10.3.0", *emit)
    again = convert(qconvert, digits, second, "--config", first / "qconvert.toml")

    dialects = {"ranges.ppq.json", "ranges.mqbench.json", "ranges.nvdla.json"}
    files = document["files"]
    assert isinstance(files, list)
    assert dialects <= set(files)
    assert again["files"] == files
    for name in sorted(dialects):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_targets_without_engines_say_so(qconvert: Command, digits: Path, tmp_path: Path) -> None:
    made = qconvert("convert", digits / "digits.onnx", "--to", "onnx", "-o", tmp_path / "out", "-q")
    assert made.code == 0, made.err

    outcome = qconvert("verify", tmp_path / "out", "--engine")

    assert outcome.code == 2


HEADS = """[net]
width=64
height=64
channels=3
[convolutional]
filters=16
size=3
stride=4
pad=1
activation=leaky
[convolutional]
filters=21
size=1
stride=1
activation=linear
[yolo]
mask=0,1,2
anchors=4,4,8,8,16,16
classes=2
num=3
"""


@pytest.mark.parametrize("extra", [(), ("--detection-output",)], ids=["maps", "boxes"])
def test_a_network_ends_before_its_heads(
    extra: tuple[str, ...], qconvert: Command, tmp_path: Path, rng: np.random.Generator
) -> None:
    source = nets.write(tmp_path, HEADS, rng)
    assert source.weights is not None

    outcome = qconvert(
        "convert", source.model, source.weights, "--to", "tensorrt", "--trt-version", "7.1.3",
        "--cut-heads", *extra, "-o", tmp_path / "out", "--json",
    )  # fmt: skip

    assert outcome.code == 0, outcome.err
    (output,) = outcome.json["verification"]["outputs"]
    assert output["name"] == "convolutional_1"
    assert any("its outputs are 'convolutional_1'" in text for text in outcome.json["warnings"])


def test_cutting_where_there_is_no_head_says_so(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    document = convert(
        qconvert, digits, tmp_path / "out", "--trt-version", "11.0", "--cut-heads", data=False
    )

    warnings = document["warnings"]
    assert isinstance(warnings, list)
    assert any("--cut-heads has no effect" in warning for warning in warnings)

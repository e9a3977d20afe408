"""Real networks: the artifact in ncnn against the reference outputs of independent runtimes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.backends.ncnn.cost import measure
from qconvert.formats.ncnn_param import parse
from qconvert.frontends import FRONTENDS
from qconvert.passes.order import optimize
from qconvert.report import Report
from qconvert.runtimes.ncnn import NcnnRuntime
from qconvert.source import ReadOptions, Source
from tests.backends.ncnn.support import cosine, deploy, quantized, simulate

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.quant import F32


@dataclass(frozen=True)
class Case:
    """A network, the least cosine of its int8 artifact with its simulation, and what to expect."""

    name: str
    int8: float = 0.999
    most_layers: int = 10**6

    @property
    def id(self) -> str:
        return self.name


# Layer counts: what ncnn's own tools make of the model, where their output is at hand.
FLOAT = [
    Case("caffe_lenet_mnist"),
    Case("caffe_mtcnn_lnet_det4"),
    Case("caffe_mtcnn_onet"),
    Case("caffe_mtcnn_pnet"),
    Case("caffe_mtcnn_rnet"),
    Case("caffe_squeezenet_v1.1", most_layers=48),
    Case("caffe_ultraface_slim320"),
    Case("caffe_wechat_sr"),
    Case("darknet_mnv2_yolo_fastest_voc"),
    Case("darknet_yolo_fastest_1.0_xl"),
    Case("darknet_yolo_fastest_1.1"),
    Case("darknet_yoloface_500k"),
    Case("onnx_fastestdet", most_layers=130),
    Case("onnx_mnist_cntk"),
    Case("onnx_mobilenet_v1_025"),
    Case("onnx_resnet20_cifar10_fp32"),
    Case("onnx_resnet20_cifar10_qat_qdq"),
    Case("onnx_squeezenet_fp16"),
    Case("onnx_style_mosaic"),
    Case("onnx_ultraface_rfb320"),
    Case("onnx_yunet_n_320"),
    Case("ncnn_fastestdet", most_layers=130),
    Case("ncnn_nanodet_m", most_layers=153),
    Case("ncnn_scrfd_500m", most_layers=103),
    Case("ncnn_squeezenet_v1.1", most_layers=48),
]

INT8 = [
    Case("caffe_lenet_mnist", 0.99999),
    Case("caffe_mtcnn_lnet_det4", 0.99999),
    Case("caffe_mtcnn_onet", 0.99999),
    Case("caffe_mtcnn_pnet", 0.99999),
    Case("caffe_mtcnn_rnet", 0.99999),
    Case("caffe_squeezenet_v1.1", 0.99999),
    Case("onnx_mobilenet_v1_025"),
    Case("onnx_resnet20_cifar10_fp32"),
]

DEEP = (
    "caffe_ultraface_slim320",
    "darknet_mnv2_yolo_fastest_voc",
    "darknet_yolo_fastest_1.1",
    "darknet_yoloface_500k",
)

SUFFIXES = {"caffe": (".prototxt", ".caffemodel"), "darknet": (".cfg", ".weights"),
            "onnx": (".onnx", ""), "ncnn": (".param", ".bin")}  # fmt: skip


def read(folder: Path) -> tuple[ir.Model, dict[str, F32]]:
    """A network and its reference arrays; inputs as large as the reference's."""
    kind = folder.name.split("_")[0]
    model_suffix, weight_suffix = SUFFIXES[kind]
    weights = next(folder.glob(f"*{weight_suffix}"), None) if weight_suffix else None
    source = Source(next(folder.glob(f"*{model_suffix}")), weights)
    with np.load(folder / "reference.npz", allow_pickle=False) as arrays:
        held = {key: np.asarray(arrays[key], dtype=np.float32) for key in arrays}
    shape = tuple(held["input_0"].shape)
    frontend = FRONTENDS[kind]
    names = _input_names(source, kind, shape)
    options = ReadOptions(input_shapes=dict.fromkeys(names, shape))
    return frontend.read(source, options, Report()), held


def _input_names(source: Source, kind: str, shape: tuple[int, ...]) -> list[str]:
    """Inputs whose declared shape is another than `shape`, or missing."""
    if kind == "ncnn":
        rows = [line.split() for line in source.model.read_text().splitlines()]
        return [row[4] for row in rows if row[0] == "Input"]
    model = FRONTENDS[kind].read(source, ReadOptions(), Report())
    value = next(value for value in model.graph.inputs if value.const_value is None)
    return [] if value.shape is not None and tuple(value.shape) == shape else [str(value.name)]


@pytest.mark.slow
@pytest.mark.parametrize("case", FLOAT, ids=lambda case: case.id)
def test_the_float_artifact_is_the_model(case: Case, corpus: Path) -> None:
    model, held = read(corpus / "models" / case.name)
    source = model.clone()
    optimize(model, Report())
    name = next(str(value.name) for value in model.graph.inputs if value.const_value is None)
    feed = {name: held["input_0"]}

    artifact = deploy(model, feed)

    for output, expected in simulate(source, feed).items():
        assert cosine(artifact.outputs[output], expected) > 0.99999, output
        reference = held.get(f"out_0::{output}")
        # OpenCV decodes Darknet's boxes, Darknet does not.
        if reference is not None and not case.name.startswith("darknet"):
            assert cosine(artifact.outputs[output], reference) > 0.99999, output
    assert len(artifact.kinds) <= case.most_layers


@pytest.mark.slow
@pytest.mark.parametrize("name", [case.name for case in FLOAT if case.name.startswith("ncnn")])
def test_files_of_ncnns_own_tools_cost_no_less_than_ours(name: str, corpus: Path) -> None:
    folder = corpus / "models" / name
    param, weights = next(folder.glob("*.param")), next(folder.glob("*.bin"))
    network = parse(param.read_text(), origin=name)
    model, held = read(folder)
    optimize(model, Report())
    x = held["input_0"]
    entry = str(model.graph.inputs[0].name)

    ours = deploy(model, {entry: x}).written.extra["cost"]["model"]

    blobs = [blob for blob in network.blobs if blob != entry]
    with NcnnRuntime(param, weights, inputs={}, outputs={}) as runtime:
        arrays = runtime.extract({entry: x[0]}, blobs)
    shapes = {blob: array.shape for blob, array in arrays.items()} | {entry: x.shape[1:]}
    theirs = measure(network, shapes)
    assert ours["layers"] <= theirs.layers
    assert ours["macs"] <= theirs.macs
    assert ours["blob_bytes"] <= theirs.blob_bytes


@pytest.mark.slow
@pytest.mark.parametrize("case", FLOAT, ids=lambda case: case.id)
def test_halves_in_the_file_keep_the_model(case: Case, corpus: Path) -> None:
    model, held = read(corpus / "models" / case.name)
    source = model.clone()
    optimize(model, Report())
    name = next(str(value.name) for value in model.graph.inputs if value.const_value is None)
    feed = {name: held["input_0"]}

    artifact = deploy(model, feed, options={"fp16": True})

    for output, expected in simulate(source, feed).items():
        assert cosine(artifact.outputs[output], expected) > 0.9999, output


@pytest.mark.slow
@pytest.mark.parametrize("case", INT8, ids=lambda case: case.id)
def test_the_int8_artifact_is_the_simulation(case: Case, corpus: Path) -> None:
    model, held = read(corpus / "models" / case.name)
    optimize(model, Report())
    name = next(str(value.name) for value in model.graph.inputs if value.const_value is None)
    feeds = [{name: held[key]} for key in held if key.startswith("input_")][:4]
    simulation = quantized(model, feeds)

    artifact = deploy(simulation, feeds[0], float_model=model)

    for output, expected in simulate(simulation, feeds[0]).items():
        assert cosine(artifact.outputs[output], expected) > case.int8, output
    assert all(row.details.get("winograd", True) for row in artifact.written.layers)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_a_deep_depthwise_network_strays_less_than_quantization_itself(
    name: str, corpus: Path
) -> None:
    """Each of dozens of requantized layers turns last-bit differences into whole codes.

    A change of 1e-7 in the biases moves the simulation of yolo_fastest_1.1 to a cosine of 0.9992
    with itself; ncnn's 12-bit reciprocal in depthwise layers on x86 adds to that.
    """
    model, held = read(corpus / "models" / name)
    optimize(model, Report())
    blob = next(str(value.name) for value in model.graph.inputs if value.const_value is None)
    feeds = [{blob: held[key]} for key in held if key.startswith("input_")][:4]
    simulation = quantized(model, feeds)

    artifact = deploy(simulation, feeds[0], float_model=model)

    exact = simulate(model, feeds[0])
    for output, expected in simulate(simulation, feeds[0]).items():
        strays = 1 - cosine(artifact.outputs[output], expected)
        costs = 1 - cosine(artifact.outputs[output], exact[output])
        assert strays < 0.005
        assert strays < 0.25 * costs, output
    assert any("approximate" in row.details for row in artifact.written.layers)


@pytest.mark.slow
def test_detections_are_those_of_the_simulation(corpus: Path) -> None:
    model, held = read(corpus / "models" / "caffe_retinaface_widerface")
    source = model.clone()
    optimize(model, Report())
    feed = {"data": held["input_0"]}

    artifact = deploy(model, feed)

    [(name, rows)] = simulate(source, feed).items()
    found = artifact.outputs[name].reshape(-1, 6)
    expected = rows.reshape(-1, 7)[:, 1:]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert "DetectionOutput" in artifact.kinds

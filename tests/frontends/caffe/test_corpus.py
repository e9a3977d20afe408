"""Real networks against what an independent runtime gave for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.frontends import caffe
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs
from qconvert.source import ReadOptions, Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.quant import F32

MODELS = [
    "lenet_mnist",
    "mtcnn_lnet_det4",
    "mtcnn_onet",
    "mtcnn_pnet",
    "mtcnn_rnet",
    "retinaface_widerface",
    "squeezenet_v1.1",
    "ultraface_slim320",
    "wechat_sr",
]


def _read(folder: Path, shape: tuple[int, ...]) -> ir.Model:
    source = Source(next(folder.glob("*.prototxt")), next(folder.glob("*.caffemodel")))
    model = caffe.read(source, ReadOptions(), Report())
    name = str(model.graph.inputs[0].name)
    report = Report()
    model = caffe.read(source, ReadOptions(input_shapes={name: shape}), report)
    assert not report.warnings
    return model


def _run(model: ir.Model, layers: list[str], x: F32) -> dict[str, F32]:
    """Outputs by layer: OpenCV names them so, and gives a layer's own before in-place ones."""
    values = {str(node.name): str(node.outputs[0].name) for node in model.graph}
    probed = with_outputs(model, [values[name] for name in layers])
    with OnnxRuntime(probed, threads=1) as runtime:
        results = runtime.run({runtime.inputs[0]: x})
    return {name: results[values[name]] for name in layers}


@pytest.mark.parametrize("name", MODELS)
def test_a_real_network_gives_its_reference(name: str, corpus: Path) -> None:
    folder = corpus / "models" / f"caffe_{name}"
    with np.load(folder / "reference.npz", allow_pickle=False) as file:
        reference: Mapping[str, F32] = {key: file[key] for key in file.files}
    cases = sorted(key for key in reference if key.startswith("input_"))

    for case in cases:
        prefix = f"out_{case.removeprefix('input_')}::"
        wanted = {k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)}
        model = _read(folder, reference[case].shape)
        actual = _run(model, list(wanted), reference[case])
        for layer, expected in wanted.items():
            compare = _same_detections if layer == "detection_out" else _same_numbers
            compare(actual[layer], expected)


def _same_numbers(actual: F32, expected: F32) -> None:
    assert actual.shape == expected.shape
    a, b = actual.ravel().astype(np.float64), expected.ravel().astype(np.float64)
    assert a @ b > 0.99999 * np.linalg.norm(a) * np.linalg.norm(b)
    assert np.abs(a - b).max() < 1e-4 * np.ptp(b)


def _same_detections(actual: F32, expected: F32) -> None:
    found, wanted = actual[0, 0], expected[0, 0]
    wanted = wanted[wanted[:, 2] > 0]  # the reference fills up with zeros
    rows = [each[np.lexsort(each[:, [2, 1]].T)] for each in (found, wanted)]
    np.testing.assert_allclose(rows[0][:, :3], rows[1][:, :3], atol=1e-3)
    np.testing.assert_allclose(rows[0][:, 3:], rows[1][:, 3:], atol=1e-4)

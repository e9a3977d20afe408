"""Real networks: sound files, and no more lost than the same scales lose on ncnn."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.backends.ncnn.policy import POLICY as NCNN
from qconvert.backends.tensorrt import backend
from qconvert.calibration.run import thresholds
from qconvert.calibration.settings import Settings
from qconvert.dataset.reader import open_dataset
from qconvert.graph import input_shapes
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.order import optimize
from qconvert.passes.planning import plan
from qconvert.passes.policies import ANY
from qconvert.plan import Scheme
from qconvert.progress import Quiet
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from tests.backends.ncnn.test_corpus import read
from tests.backends.tensorrt.support import cosine, planned, write
from tests.backends.tensorrt.test_writer import manifest_of

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (
    "caffe_lenet_mnist",
    "caffe_mtcnn_rnet",
    "caffe_squeezenet_v1.1",
    "caffe_ultraface_slim320",
    "darknet_yoloface_500k",
    "ncnn_fastestdet",
    "onnx_mobilenet_v1_025",
    "onnx_resnet20_cifar10_fp32",
    "onnx_yunet_n_320",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_real_network_loses_no_more_than_on_ncnn(name: str, corpus: Path, tmp_path: Path) -> None:
    model, held = read(corpus / "models" / name)
    backend.BACKEND.prepare(model, {})
    optimize(model, Report())
    feeds = [held[key] for key in held if key.startswith("input_")][:8]
    np.save(tmp_path / "x.npy", np.concatenate(feeds))
    shapes = input_shapes(model)
    (blob,) = shapes
    data = open_dataset(tmp_path / "x.npy", shapes, preprocessing=None)
    settings = Settings(method="mse", threads=1)
    wide = plan(model, ANY, Scheme(), Report())
    scales = thresholds(model, wide, data, settings, Report(), Quiet())
    # What ncnn's artifact follows: its own tests hold it to that.
    theirs = insert_qdq(model, plan(model, NCNN, Scheme(), Report()), scales)

    bundle = write(tmp_path / "out", insert_qdq(model, planned(model), scales), model)

    manifest = manifest_of(bundle)
    assert list(backend.BACKEND.check(bundle.folder, manifest)) == []
    lost: dict[str, list[tuple[float, float]]] = {}
    with (
        closing(backend.BACKEND.open(bundle.folder, manifest)) as ours,
        OnnxRuntime(theirs, threads=1) as other,
        OnnxRuntime(model, threads=1) as exact,
    ):
        for x in feeds:
            mine, others = ours.run({blob: x}), other.run({blob: x})
            for output, wanted in exact.run({blob: x}).items():
                pair = 1 - cosine(mine[output], wanted), 1 - cosine(others[output], wanted)
                lost.setdefault(output, []).append(pair)
    for output, pairs in lost.items():
        on_tensorrt, on_ncnn = np.mean(pairs, axis=0)
        # Element-wise operators and pooling round their inputs here too: a tenth more may be lost.
        assert on_tensorrt < 1.1 * on_ncnn + 1e-3, output

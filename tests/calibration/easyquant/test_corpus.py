"""Real networks, measured on photos the calibration has not seen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.calibration.run import calibrate
from qconvert.calibration.settings import Settings
from qconvert.dataset.preprocessing import Preprocessing, read_keys
from qconvert.dataset.reader import open_dataset
from qconvert.frontends import FRONTENDS
from qconvert.graph import input_shapes
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.order import optimize
from qconvert.passes.planning import plan
from qconvert.plan import Scheme
from qconvert.progress import Quiet
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.source import ReadOptions, Source
from tests.calibration.easyquant.conftest import policy

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.quant import F32


@pytest.mark.slow
def test_onet_comes_far_closer_to_float_than_with_kl(corpus: Path) -> None:
    folder = corpus / "models" / "caffe_mtcnn_onet"
    source = Source(folder / "det3.prototxt", folder / "det3.caffemodel")
    model = FRONTENDS["caffe"].read(source, ReadOptions(), Report())
    optimize(model, Report())
    keys = read_keys(folder / "preprocessing.json")
    photos = open_dataset(
        corpus / "images" / "imagenet200",
        input_shapes(model),
        preprocessing=Preprocessing.from_mapping(keys, "corpus"),
    )
    seen = photos.subset(range(0, 200, 4))
    unseen = list(photos.subset([index for index in range(200) if index % 4]))
    layout = plan(model, policy(), Scheme(), Report())
    settings = Settings(method="kl", threads=1)

    def errors(settings: Settings) -> dict[str, float]:
        found = calibrate(model, layout, seen, settings, Report(), Quiet()).encodings
        with OnnxRuntime(insert_qdq(model, layout, found), threads=1) as runtime:
            rows = [runtime.run(sample.inputs) for sample in unseen]
        return {
            name: float(
                np.mean(
                    [np.square(a[name] - b[name]).mean() for a, b in zip(rows, exact, strict=True)]
                )
            )
            ** 0.5
            for name in exact[0]
        }

    exact: list[dict[str, F32]] = []
    with OnnxRuntime(model, threads=1) as runtime:
        exact += [runtime.run(sample.inputs) for sample in unseen]
    kl, easyquant = errors(settings), errors(replace(settings, method="easyquant"))

    assert easyquant["prob1"] <= 0.35 * kl["prob1"]
    for name, error in easyquant.items():
        assert error <= 0.6 * kl[name], name

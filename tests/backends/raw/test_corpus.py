"""Real networks as integer programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qconvert.pipeline.convert import convert
from qconvert.pipeline.job import Job
from qconvert.pipeline.verify import verify
from qconvert.progress import Quiet
from qconvert.recipe import Recipe
from qconvert.report import Report

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = {".onnx", ".prototxt", ".caffemodel", ".cfg", ".weights"}


@dataclass(frozen=True)
class Case:
    model: str
    images: str
    float_operators: tuple[str, ...] = ()
    power_of_two: bool = False


CASES = [
    Case("caffe_lenet_mnist", "mnist_test_1000.npz", ("Softmax",)),
    Case("onnx_mnist_cntk", "mnist_test_1000.npz"),
    Case("onnx_resnet20_cifar10_fp32", "cifar10_test_1000.npz"),
    Case("onnx_resnet20_cifar10_fp32", "cifar10_test_1000.npz", power_of_two=True),
    Case("caffe_squeezenet_v1.1", "imagenet200", ("Softmax",)),
    Case("darknet_yolo_fastest_1.1", "detect", ("Yolo", "Yolo")),
]


def _data(path: Path, folder: Path) -> Path:
    """A few images: a list of files, or the first of an array."""
    if path.is_dir():
        images = sorted(file for file in path.iterdir() if file.suffix in {".jpg", ".png"})
        listing = folder / "images.txt"
        listing.write_text("\n".join(str(file) for file in images[::8] or images))
        return listing
    with np.load(path) as arrays:
        np.savez(folder / "few.npz", x=arrays["x"][:64])
    return folder / "few.npz"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_network_follows_onnxruntime_code_by_code(
    case: Case, corpus: Path, tmp_path: Path
) -> None:
    source = corpus / "models" / case.model
    keys: dict[str, Any] = json.loads((source / "preprocessing.json").read_text())
    recipe = Recipe(
        to="raw",
        method="minmax",
        preprocess=keys,
        power_of_two=case.power_of_two,
        jobs=1,
        options={"golden": 1},
    )
    files = tuple(sorted(path for path in source.iterdir() if path.suffix in SUFFIXES))
    data = _data(corpus / "images" / case.images, tmp_path)

    made = convert(Job(files, tmp_path / "raw", recipe, data), Report(), Quiet())

    figures = made.manifest.verification
    assert figures is not None
    steps = figures["simulation"]["layers"]
    assert steps["largest"] <= 1
    assert steps["differing"] < (0.05 if case.power_of_two else 1e-4) * steps["codes"]
    assert figures["simulation"]["top1_agreement"] in (None, 1.0)
    segments = [row.extra["attributes"] for row in made.manifest.layers if row.type == "float"]
    assert tuple(name for each in segments for name in each["operators"]) == case.float_operators
    again = verify(
        tmp_path / "raw", data=None, preprocess=None, min_cosine=None, jobs=1, progress=Quiet()
    )
    assert again["golden_vectors"] == sum(len(row.extra["outputs"]) for row in made.manifest.layers)

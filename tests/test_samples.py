"""The samples run as their pages say, and one network in three formats is one network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qconvert import api
from qconvert.dataset.preprocessing import Preprocessing, read_keys
from qconvert.dataset.reader import open_dataset
from qconvert.runtimes.onnx import OnnxRuntime

DIGITS = Path(__file__).resolve().parents[1] / "samples" / "digits"
SOURCES = (("digits.prototxt", "digits.caffemodel"), ("digits.cfg", "digits.weights"))


@pytest.mark.parametrize("files", SOURCES, ids=["caffe", "darknet"])
def test_the_digits_network_is_the_same_in_every_format(files: tuple[str, str]) -> None:
    preprocessing = Preprocessing.from_mapping(read_keys(DIGITS / "preprocessing.json"), "")
    data = open_dataset(
        DIGITS / "test", {"data": (1, 1, 16, 16)}, preprocessing=preprocessing
    ).subset(list(range(20)))
    inputs = [sample.inputs["data"] for sample in data]

    def outputs(*names: str) -> np.ndarray:
        with OnnxRuntime(api.load(*(DIGITS / name for name in names))) as runtime:
            return np.concatenate(
                [next(iter(runtime.run({runtime.inputs[0]: x}).values())) for x in inputs]
            )

    np.testing.assert_allclose(outputs(*files), outputs("digits.onnx"), atol=1e-5)


def test_the_story_of_the_digits_runs(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    ran = subprocess.run(
        ["sh", str(DIGITS / "run.sh")],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("99.5 %") >= 2
    # onnxruntime leaves a hidden file of its own.
    assert [path for path in tmp_path.iterdir() if path.name != ".ses"] == []

"""CONTRIBUTING's recipes work as written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

PROTOTXT = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }
layer { name: "y" type: "Square" bottom: "data" top: "y" }
"""

CHECK = """
from pathlib import Path
import numpy as np
from qconvert.frontends import FRONTENDS
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.source import ReadOptions, Source

options = ReadOptions(random_weights=True)
model = FRONTENDS["caffe"].read(Source(Path("net.prototxt")), options, Report())
y = OnnxRuntime(model).run({"data": np.array([[2, -3]], np.float32)})["y"]
assert y.tolist() == [[4, 9]], y
assert "Square" in FRONTENDS["caffe"].operators()
"""


def test_the_operator_recipe_runs(tmp_path: Path) -> None:
    recipe = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert recipe is not None
    (tmp_path / "net.prototxt").write_text(PROTOTXT)

    # A process of its own: the layer must not stay registered for other tests.
    subprocess.run([sys.executable, "-c", recipe[1] + CHECK], cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?)`", TEXT))), ids=str
)
def test_every_place_it_names_exists(path: str) -> None:
    assert (ROOT / path).exists()

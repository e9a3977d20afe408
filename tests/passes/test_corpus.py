"""Real models before and after optimization, in onnxruntime."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from onnx_ir.passes import common

from qconvert.graph import input_shapes
from qconvert.passes.order import optimize
from qconvert.pipeline.load import load
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.source import ReadOptions

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("QCONVERT_CORPUS", ROOT.parent / "shared" / "corpus")) / "models"
SUFFIXES = {".prototxt", ".caffemodel", ".cfg", ".weights", ".onnx", ".param", ".bin"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in MODELS.glob("*/")) or ["none"])
def test_optimizing_a_real_model_keeps_its_outputs(
    name: str, corpus: Path, rng: np.random.Generator
) -> None:
    folder = corpus / "models" / name
    with np.load(folder / "reference.npz") as reference:
        array = reference["input_0"]
    # ncnn files that declare no input size.
    sizeless = name in {"ncnn_fastestdet", "ncnn_nanodet_m", "ncnn_scrfd_500m"}
    options = ReadOptions(input_shapes={"input.1": array.shape} if sizeless else {})
    files = [path for path in folder.iterdir() if path.suffix in SUFFIXES]
    model = load(files, options, Report()).model
    shapes = input_shapes(model)
    inputs = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    with OnnxRuntime(model, threads=1) as runtime:
        before = runtime.run(inputs)

    optimize(model, Report())

    common.CheckerPass()(model)
    with OnnxRuntime(model, threads=1) as runtime:
        after = runtime.run(inputs)
    assert list(after) == list(before)
    for key, expected in before.items():
        scale = np.abs(expected).max(initial=1e-6)
        np.testing.assert_allclose(after[key], expected, rtol=1e-3, atol=1e-3 * scale)
    assert "BatchNormalization" not in {node.op_type for node in model.graph}

"""Models from onnxruntime's own quantizer, in both of its formats."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from qconvert.passes.adopt_qdq import adopt_qdq
from qconvert.passes.order import optimize
from qconvert.pipeline.load import load
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.source import ReadOptions
from tests.passes.policies import LAYERS
from tests.passes.reading import encodings_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.passes.conftest import Build

NET = """
net (float[1, 3, 16, 16] x) => (float[1, 5] y) {
  [conv1] a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
  [relu1] r = Relu (a)
  [pool1] p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
  [conv2] c = Conv <pads = [1, 1, 1, 1]> (p, w2, b2)
  [conv3] d = Conv (p, w3)
  [add] e = Add (c, d)
  [relu2] f = Relu (e)
  [mean] g = GlobalAveragePool (f)
  [flat] h = Flatten (g)
  [fc] y = Gemm <transB = 1> (h, w4, b4)
}
"""


@dataclass(frozen=True)
class Case:
    id: str
    form: str
    activations: str
    weights: str
    per_channel: bool


CASES = [
    Case("qdq_int8_per_channel", "QDQ", "QInt8", "QInt8", per_channel=True),
    Case("qdq_uint8", "QDQ", "QUInt8", "QUInt8", per_channel=False),
    Case("qdq_uint8_int8", "QDQ", "QUInt8", "QInt8", per_channel=True),
    Case("qoperator_uint8_int8", "QOperator", "QUInt8", "QInt8", per_channel=True),
    Case("qoperator_int8", "QOperator", "QInt8", "QInt8", per_channel=False),
]


def foreign(model: ir.Model, case: Case, folder: Path, rng: np.random.Generator) -> Path:
    """The file that onnxruntime's quantizer makes of a float model."""
    from onnxruntime import quantization as tool

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc] # untyped base
        def __init__(self) -> None:
            self.left = [rng.normal(size=(1, 3, 16, 16)).astype(np.float32) for _ in range(4)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return {"x": self.left.pop()} if self.left else None

    source, result = folder / "float.onnx", folder / "foreign.onnx"
    ir.save(model, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tool.quantize_static(
            source,
            result,
            Reader(),
            quant_format=tool.QuantFormat[case.form],
            activation_type=tool.QuantType[case.activations],
            weight_type=tool.QuantType[case.weights],
            per_channel=case.per_channel,
        )
    return result


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_models_of_onnxruntimes_quantizer_reach_a_target_of_layers(
    case: Case, graph: Build, rng: np.random.Generator, tmp_path: Path
) -> None:
    shapes = {
        "w1": (8, 3, 3, 3), "b1": (8,), "w2": (6, 8, 3, 3), "b2": (6,), "w3": (6, 8, 1, 1),
        "w4": (5, 6), "b4": (5,),
    }  # fmt: skip
    net = graph(
        NET, **{key: rng.normal(0, 0.3, shape).astype(np.float32) for key, shape in shapes.items()}
    )
    path = foreign(net, case, tmp_path, rng)
    model = load([path], ReadOptions(simplify=False), Report()).model
    images = [rng.normal(size=(1, 3, 16, 16)).astype(np.float32) for _ in range(8)]
    with OnnxRuntime(path, threads=1) as runtime:
        before = np.concatenate([runtime.run({"x": image})["y"] for image in images])

    optimize(model, Report())
    adopted = adopt_qdq(model, LAYERS, Report())

    encodings = encodings_of(adopted)
    assert len(encodings.weights) == 4
    assert all(params.symmetric for params in encodings.activations.values())
    assert len(encodings.activations) == 3
    with OnnxRuntime(adopted, threads=1) as runtime:
        after = np.concatenate([runtime.run({"x": image})["y"] for image in images])
    # Rounding that the target has no place for is gone; what is left is a few steps of it.
    assert np.abs(after - before).max() < 0.06 * np.abs(before).max()

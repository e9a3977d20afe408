"""A quantized model folds as a float one does, and has a float model within it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.passes.order import optimize
from qconvert.passes.read_qdq import has_qdq, without_qdq
from qconvert.report import Report
from tests.passes.reading import kinds

if TYPE_CHECKING:
    import onnx_ir as ir

    from tests.passes.conftest import Run


def test_optimizing_a_qat_model_keeps_its_result(
    qat: ir.Model, run: Run, rng: np.random.Generator
) -> None:
    inputs = [rng.normal(size=(1, 4, 6, 6)).astype(np.float32) for _ in range(8)]
    before = [run(qat, {"x": x})["y"] for x in inputs]

    optimize(qat, Report())

    assert "BatchNormalization" not in kinds(qat)
    for x, expected in zip(inputs, before, strict=True):
        # A factor that moves into a scale may turn a tie: one step of the output at most.
        np.testing.assert_allclose(run(qat, {"x": x})["y"], expected, atol=0.0501)


def test_float_model_of_a_quantized_one_has_its_names_and_weights(
    qat: ir.Model, run: Run, rng: np.random.Generator
) -> None:
    optimize(qat, Report())

    plain = without_qdq(qat)

    assert has_qdq(qat)
    assert not has_qdq(plain)
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    difference = run(plain, {"x": x})["y"] - run(qat, {"x": x})["y"]
    assert 0 < np.abs(difference).max() < 0.3
    assert {"conv", "conv2", "fc"} <= {str(node.name) for node in plain.graph}

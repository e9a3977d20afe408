from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from qconvert.passes.quantize_biases import QuantizeBiases
from qconvert.report import Report

if TYPE_CHECKING:
    from tests.passes.conftest import Build, Run

BODIES = {
    "conv": "y = Conv<pads = [1, 1, 1, 1]>(d, wd, b)",
    "grouped_deconv": "y = ConvTranspose<group = 2>(d, wd, b)",
    "gemm": "y = Gemm<transB = 1>(d, wd, b)",
}


def model_of(graph: Build, rng: np.random.Generator, kind: str) -> ir.Model:
    """One integer layer with six outputs; output 2 has no weights at all."""
    shapes = {"conv": (6, 4, 3, 3), "grouped_deconv": (4, 3, 2, 2), "gemm": (6, 100)}
    codes = rng.integers(-127, 128, shapes[kind]).astype(np.int8)
    axis = 1 if kind == "grouped_deconv" else 0
    if axis == 0:
        codes[2] = 0

    shape = "1, 100" if kind == "gemm" else "1, 4, 5, 5"
    scale = np.asarray(rng.uniform(0.001, 0.002, codes.shape[axis]), np.float32)
    if axis == 0:
        scale[2] = 1
    return graph(
        f"""
        net (float[{shape}] x) => (float[] y) {{
          q = QuantizeLinear (x, s, z)
          d = DequantizeLinear (q, s, z)
          wd = DequantizeLinear <axis = {axis}> (w, t, u)
          [layer] {BODIES[kind]}
        }}
        """,
        s=np.float32(0.02),
        z=np.int8(0),
        w=codes,
        t=scale,
        u=np.zeros(codes.shape[axis], np.int8),
        b=rng.normal(size=6).astype(np.float32),
    )


@pytest.mark.parametrize("kind", ["conv", "grouped_deconv", "gemm"])
def test_integer_bias_moves_the_output_by_half_a_step(
    kind: str, graph: Build, run: Run, rng: np.random.Generator
) -> None:
    model = model_of(graph, rng, kind)
    shape = model.graph.inputs[0].shape
    assert shape is not None
    x = rng.normal(size=tuple(shape.numpy())).astype(np.float32)
    before = run(model, {"x": x})["y"]

    QuantizeBiases(Report())(model)

    after = run(model, {"x": x})["y"]
    assert 0 < np.abs(after - before).max() <= 0.5 * 0.02 * 0.002 + 1e-5
    # With every optimization onnxruntime has, its own bias rounding included.
    content = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], after, atol=1e-4)


def test_a_bias_beyond_32_bits_stays_and_says_why(graph: Build, rng: np.random.Generator) -> None:
    model = model_of(graph, rng, "conv")
    bias = model.graph.initializers["b"]
    bias.const_value = ir.tensor(np.full(6, 1e9, np.float32), name="b")
    report = Report()

    QuantizeBiases(report)(model)

    assert [note.why_not is not None for note in report.notes] == [True]
    assert "b" in model.graph.initializers

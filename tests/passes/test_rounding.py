"""What is compared with ncnn rounds and saturates as ncnn does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from qconvert.backends.ncnn.policy import POLICY
from qconvert.passes.rounding import quantizing_as
from qconvert.runtimes.onnx import OnnxRuntime

MODEL = """
<ir_version: 10, opset_import: ["": 21]>
main (float[1, 8] x) => (float[1, 8] y, float[1, 8] z)
<float s = {0.5}, int8 zero = {0}, int8[1, 8] q>
{
    q = QuantizeLinear(x, s, zero)
    y = DequantizeLinear(q, s, zero)
    d = DequantizeLinear(q, s, zero)
    z = Neg(d)
}
"""
X = np.array([[-1e4, -64.0, -0.75, -0.25, 0.0, 0.25, 0.75, 1e4]], np.float32)


@pytest.mark.parametrize(
    ("away", "wanted"),
    [
        (True, [-63.5, -63.5, -1.0, -0.5, 0.0, 0.5, 1.0, 63.5]),
        (False, [-64.0, -64.0, -1.0, 0.0, 0.0, 0.0, 1.0, 63.5]),
    ],
    ids=["half_away", "half_even"],
)
def test_codes_are_the_targets(away: bool, wanted: list[float]) -> None:
    model = ir.from_onnx_text(MODEL)

    simulated = quantizing_as(replace(POLICY, rounds_away=away), model)

    with OnnxRuntime(simulated) as runtime:
        found = runtime.run({"x": X})
    np.testing.assert_array_equal(found["y"], [wanted])
    np.testing.assert_array_equal(found["z"], -np.array([wanted]))


def test_the_model_itself_is_left_alone() -> None:
    model = ir.from_onnx_text(MODEL)

    quantizing_as(POLICY, model)

    assert [node.op_type for node in model.graph].count("QuantizeLinear") == 1

"""What is compared with ncnn saturates where ncnn does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from qconvert.backends.ncnn.policy import POLICY
from qconvert.passes.saturate import saturating_as
from qconvert.runtimes.onnx import OnnxRuntime

MODEL = """
<ir_version: 10, opset_import: ["": 21]>
main (float[1, 6] x) => (float[1, 6] y, float[1, 6] z)
<float s = {0.5}, int8 zero = {0}, int8[1, 6] q>
{
    q = QuantizeLinear(x, s, zero)
    y = DequantizeLinear(q, s, zero)
    d = DequantizeLinear(q, s, zero)
    z = Neg(d)
}
"""


@pytest.mark.parametrize(("narrow", "lowest"), [(True, -63.5), (False, -64.0)])
def test_codes_stop_where_the_target_stops(narrow: bool, lowest: float) -> None:
    model = ir.from_onnx_text(MODEL)
    x = np.array([[-1e4, -64.0, -63.5, 0.0, 63.5, 1e4]], np.float32)

    simulated = saturating_as(replace(POLICY, narrow_activations=narrow), model)

    with OnnxRuntime(simulated) as runtime:
        found = runtime.run({"x": x})
    wanted = np.array([[lowest, lowest, -63.5, 0.0, 63.5, 63.5]], np.float32)
    np.testing.assert_array_equal(found["y"], wanted)
    np.testing.assert_array_equal(found["z"], -wanted)


def test_the_model_itself_is_left_alone() -> None:
    model = ir.from_onnx_text(MODEL)

    saturating_as(POLICY, model)

    assert [node.op_type for node in model.graph].count("Clip") == 0

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from qconvert.errors import VerificationError
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs

GRAPH = """<ir_version: 10, opset_import: ["" : 21]>
g (float[4] x, int64[1] i) => (float[1] y) { r = Relu(x) y = Gather(r, i) }"""


def test_a_model_that_fails_on_the_way_says_why() -> None:
    with OnnxRuntime(ir.from_onnx_text(GRAPH), threads=1) as runtime:
        feed = {"x": np.ones(4, np.float32), "i": np.array([9])}
        with pytest.raises(VerificationError, match="cannot run the model") as error:
            runtime.run(feed)

    assert "out of data bounds" in error.value.why


def test_a_part_of_a_model_computes_nothing_else() -> None:
    model = ir.from_onnx_text(GRAPH)

    part = with_outputs(model, ["r"])

    assert [node.op_type for node in part.graph] == ["Relu"]
    assert len(model.graph) == 2

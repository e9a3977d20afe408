"""`qconvert.DequantizeLog2` in onnxruntime, as a function and inlined, against plain numpy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_ir.passes import common

from qconvert.functions.log2 import dequantize_log2
from qconvert.qdq import codes_of
from qconvert.quant import log2
from qconvert.runtimes.onnx import OnnxRuntime


def model_of(codes: np.ndarray, scale: np.ndarray, bits: int, axis: int | None) -> ir.Model:
    """x + DequantizeLog2(codes, scale)."""
    x = ir.val("x", ir.DataType.FLOAT, codes.shape)
    y = ir.val("y", ir.DataType.FLOAT, codes.shape)
    held = [
        ir.val(name, ir.DataType.from_numpy(a.dtype), a.shape, const_value=ir.tensor(a, name=name))
        for name, a in (("codes", codes), ("scale", scale))
    ]
    graph = ir.Graph([x], [y], nodes=[], initializers=held, opset_imports={"": 21}, name="g")
    model = ir.Model(graph, ir_version=10)
    call = dequantize_log2(
        model, held[0], held[1], log2(scale, bits=bits, axis=axis), name="w/dequantize"
    )
    call.outputs[0].name = "w"
    graph.extend([call, ir.node("Add", [x, call.outputs[0]], outputs=[y], name="add")])
    return model


def numbers(codes: np.ndarray, scale: np.ndarray, bits: int) -> np.ndarray:
    """The definition, `scale` broadcast."""
    top = 2 ** (bits - 1) - 1
    magnitude = np.where(codes == 0, 0.0, 2.0 ** (np.abs(codes.astype(np.float64)) - top))
    return np.asarray(np.sign(codes) * magnitude * scale, np.float32)


@given(st.integers(2, 6), st.integers(0, 2), st.integers(0, 2**32 - 1), st.booleans())
def test_the_body_computes_the_definition(bits: int, axis: int, seed: int, inlined: bool) -> None:
    rng = np.random.default_rng(seed)
    top = 2 ** (bits - 1) - 1
    codes = rng.integers(-top, top, size=(3, 4, 5), endpoint=True, dtype=np.int8)
    scale = np.asarray(rng.uniform(0.01, 3, size=codes.shape[axis]), np.float32)
    model = model_of(codes, scale, bits, axis)
    if inlined:
        common.InlinePass()(model)
    common.CheckerPass()(model)

    with OnnxRuntime(model, threads=1) as runtime:
        found = runtime.run({"x": np.zeros(codes.shape, np.float32)})["y"]

    along = [1, 1, 1]
    along[axis] = -1
    np.testing.assert_array_equal(found, numbers(codes, scale.reshape(along), bits))


@pytest.mark.parametrize("axis", [None, 1], ids=["tensor", "channel"])
def test_the_codes_can_be_read_back(axis: int | None) -> None:
    codes = np.arange(-7, 8, dtype=np.int8).reshape(5, 3)
    scale = np.array([0.5, 1, 2], np.float32) if axis is not None else np.asarray(0.5, np.float32)
    model = model_of(codes, scale, 4, axis)

    found = codes_of(model.graph[-1].inputs[1])

    assert found is not None
    assert (found.params.log2, found.params.bits, found.params.axis) == (True, 4, axis)
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_array_equal(found.real(), numbers(codes, scale, 4))

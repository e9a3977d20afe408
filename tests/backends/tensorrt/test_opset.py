"""Operators in the opsets of older parsers compute what they did, says onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qconvert.backends.tensorrt.operators import known
from qconvert.backends.tensorrt.opset import lower
from qconvert.backends.tensorrt.version import parse
from tests.backends.graphs import model_of
from tests.backends.tensorrt.support import run

if TYPE_CHECKING:
    from collections.abc import Mapping

I64 = np.int64


@dataclass(frozen=True)
class Case:
    """A node `y = ...` of x [2, 4, 6, 8], its constants, and the oldest opset that has it."""

    id: str
    node: str
    constants: Mapping[str, np.ndarray | np.generic] = field(default_factory=dict)
    oldest: int = 9
    shape: str = "2, 4, 6, 8"
    result: str = "a, b, c, d"


def ints(*values: int) -> np.ndarray:
    return np.array(values, I64)


CASES = [
    Case("reduce_mean", "y = ReduceMean(x, axes)", {"axes": ints(-1, 2)}),
    Case("reduce_sum", "y = ReduceSum(x, axes)", {"axes": ints(1)}),
    Case("reduce_max_all", "y = ReduceMax<keepdims = 0>(x)", result=""),
    Case("squeeze", "y = Squeeze(x, axes)", {"axes": ints(-3)}, shape="2, 1, 4, 6", result="a,b,c"),
    Case("squeeze_all", "y = Squeeze(x)", shape="2, 1, 4, 1", result="a, b"),
    Case("unsqueeze", "y = Unsqueeze(x, axes)", {"axes": ints(-1, 0)}, result="a, b, c, d, e, f"),
    Case("slice", "y = Slice(x, s, e, axes)", {"s": ints(1, -3), "e": ints(9, -1),
                                               "axes": ints(-1, 2)}),
    Case("slice_steps", "y = Slice(x, s, e, axes, st)",
         {"s": ints(0), "e": ints(8), "axes": ints(3), "st": ints(2)}, oldest=10),
    Case("softmax_inner", "y = Softmax<axis = 1>(x)"),
    Case("softmax_last", "y = Softmax<axis = -1>(x)"),
    Case("log_softmax", "y = LogSoftmax<axis = 2>(x)"),
    Case("clip", "y = Clip(x, lo, hi)", {"lo": np.float32(-0.5), "hi": np.float32(0.25)}),
    Case("clip_above", "y = Clip(x, , hi)", {"hi": np.float32(0.25)}),
    Case("pad_axes", "y = Pad(x, p, v, axes)",
         {"p": ints(1, 2, 3, 4), "v": np.float32(1.5), "axes": ints(-1, 2)}),
    Case("pad_reflect", 'y = Pad<mode = "reflect">(x, p)', {"p": ints(0, 0, 1, 2, 0, 0, 2, 1)}),
    Case("ceil_max", "y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>(x)"),
    Case("ceil_average",
         "y = AveragePool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1, "
         "pads = [1, 1, 0, 0]>(x)"),
    Case("resize_twice", 'y = Resize<mode = "nearest", nearest_mode = "floor", '
         'coordinate_transformation_mode = "asymmetric">(x, , s)',
         {"s": np.array([1, 1, 2, 2], np.float32)}, oldest=7),
    Case("resize_thrice_from_centres", 'y = Resize<mode = "nearest">(x, , s)',
         {"s": np.array([1, 1, 3, 3], np.float32)}, oldest=7),
    Case("resize_thrice_rounded", 'y = Resize<mode = "nearest", '
         'coordinate_transformation_mode = "asymmetric">(x, , s)',
         {"s": np.array([1, 1, 3, 3], np.float32)}, oldest=11),
    Case("resize_sizes", 'y = Resize<mode = "linear">(x, , , sz)', {"sz": ints(2, 4, 9, 13)},
         oldest=11),
    Case("hard_swish", "y = HardSwish(x)"),
    Case("mish", "y = Mish(x)"),
    Case("gelu", "y = Gelu(x)"),
    Case("gelu_tanh", 'y = Gelu<approximate = "tanh">(x)'),
    Case("layer_norm", "y = LayerNormalization<axis = -2>(x, sc, b)",
         {"sc": np.linspace(0.5, 2, 48, dtype=np.float32).reshape(6, 8),
          "b": np.linspace(-1, 1, 48, dtype=np.float32).reshape(6, 8)}),
    Case("group_norm", "y = GroupNormalization<num_groups = 2>(x, sc, b)",
         {"sc": np.array([0.5, 1, 2, 3], np.float32), "b": np.array([1, -1, 2, 0], np.float32)}),
    Case("gemm", "y = Gemm<transB = 1>(x, w)", {"w": np.ones((5, 8), np.float32)},
         shape="2, 8", result="a, b"),
    Case("top_k", "y, i = TopK<axis = -1>(x, k)", {"k": ints(3)}),
    Case("concat", "y = Concat<axis = -3>(x, x)"),
    Case("flatten", "y = Flatten<axis = -2>(x)", result="a, b"),
    Case("reshape", "y = Reshape(x, s)", {"s": ints(2, 4, 48)}, result="a, b, c"),
    Case("leaky", "y = LeakyRelu<alpha = 0.1>(x)"),
    Case("depth_to_space", "y = DepthToSpace<blocksize = 2>(x)"),
]  # fmt: skip
OPSETS = (9, 10, 11, 13, 17, 20)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_an_older_opset_computes_the_same(case: Case, opset: int, rng: np.random.Generator) -> None:
    sizes = [int(dim) for dim in case.shape.split(",")]
    body = f"net (float[{case.shape}] x) => (float[{case.result}] y) {{ {case.node} }}"
    model = model_of(body, **case.constants)
    feed = {"x": rng.normal(size=sizes).astype(np.float32)}
    expected = run(model, feed)["y"]

    # A parser that knows no new operator: all of them are spelled out.
    problems = lower(model, opset, lambda _: opset > 17)

    if opset < case.oldest:
        assert problems
        return
    assert problems == []
    onnx.checker.check_model(ir.to_proto(model))
    np.testing.assert_allclose(run(model, feed)["y"], expected, rtol=1e-5, atol=1e-5)


def test_splits_name_their_sizes(rng: np.random.Generator) -> None:
    body = """net (float[1, 7] x) => (float[1, a] y, float[1, b] z) {
        y, z = Split<axis = 1, num_outputs = 2>(x)
    }"""
    feed = {"x": rng.normal(size=(1, 7)).astype(np.float32)}
    for opset in (9, 11, 13, 17):
        model = model_of(body)
        expected = run(model, feed)

        assert lower(model, opset, lambda _: True) == []

        for name, array in run(model, feed).items():
            np.testing.assert_array_equal(array, expected[name])


def test_everything_without_a_form_is_named(rng: np.random.Generator) -> None:
    body = """net (float[1, 4, 4, 4] x) => (float[1, 4, 4, 4] y, float[4, 4] z) {
        y = Round(x)
        z = Einsum<equation = "abcd->cd">(x)
    }"""

    problems = lower(model_of(body), 9, lambda _: True)

    assert {problem.what for problem in problems} == {
        "operator Round in opset 9", "operator Einsum in opset 9",
    }  # fmt: skip
    del rng


def test_a_parser_that_lacks_an_operator_gets_it_spelled_out() -> None:
    model = model_of("net (float[1, 4] x) => (float[1, 4] y) { y = Gelu(x) }")

    assert lower(model, 20, lambda operator: known(operator, parse("9.3.0"))) == []

    assert "Gelu" not in {node.op_type for node in model.graph}

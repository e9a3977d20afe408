"""A network that ends before its heads gives what the heads would have read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from qconvert.errors import UnsupportedError
from qconvert.functions.build import call
from qconvert.passes.cut_heads import cut_heads
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence


def net(body: str) -> ir.Model:
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]>\n{body}')
    for index, node in enumerate(model.graph):
        node.name = f"node_{index}"
    common.ShapeInferencePass()(model)
    return model


PLAIN = """net (float[1, 3, 4] x) => (float[1, 3, 4] other, float[1, 3, 4] boxes) {
    a = Neg(x)
    other = Abs(x)
    boxes = Exp(a)
}"""


def with_head() -> ir.Model:
    """`PLAIN` with a head on `a`, and a Neg behind the head."""
    model = net(PLAIN)
    a = model.graph[0].outputs[0]

    def body(tape: ir.tape.Tape, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        return [tape.op("Sigmoid", [inputs[0]])]

    head = call(model, "Yolo", [a], {}, body, name="yolo")
    head.outputs[0].name, head.outputs[0].type, head.outputs[0].shape = "h", a.type, a.shape
    behind = ir.node("Neg", [head.outputs[0]], name="behind")
    behind.outputs[0].name, behind.outputs[0].type = "boxes", a.type
    behind.outputs[0].shape = a.shape
    model.graph.remove(model.graph[2], safe=False)
    model.graph.extend([head, behind])
    model.graph.outputs[1] = behind.outputs[0]
    return model


def test_what_is_left_ends_in_the_maps(rng: np.random.Generator) -> None:
    model, report = with_head(), Report()
    x = rng.normal(size=(1, 3, 4)).astype(np.float32)

    cut = cut_heads(model, report)

    assert [value.name for value in cut.graph.outputs] == ["other", "a"]
    assert not cut.functions
    with OnnxRuntime(cut, threads=1) as runtime:
        np.testing.assert_array_equal(runtime.run({"x": x})["a"], -x)
    assert "its outputs are 'other', 'a'" in report.warnings[0]


def test_the_source_stays_as_it_is() -> None:
    model = with_head()
    before = ir.to_proto(model).SerializeToString()

    cut_heads(model, Report())

    assert ir.to_proto(model).SerializeToString() == before


def test_without_heads_nothing_happens() -> None:
    model, report = net(PLAIN), Report()

    assert cut_heads(model, report) is model
    assert "has no effect" in report.warnings[0]


def test_suppression_of_overlaps_is_a_head_too() -> None:
    model = net("""net (float[1, 5, 4] x, float[1, 2, 5] y) => (int64[k, 3] found) {
        boxes = Abs(x)
        scores = Abs(y)
        found = NonMaxSuppression(boxes, scores)
    }""")

    cut = cut_heads(model, Report())

    assert [value.name for value in cut.graph.outputs] == ["boxes", "scores"]


def test_a_head_on_the_input_leaves_nothing() -> None:
    model = net("""net (float[1, 5, 4] x, float[1, 2, 5] y) => (int64[k, 3] found) {
        found = NonMaxSuppression(x, y)
    }""")

    with pytest.raises(UnsupportedError, match="nothing is left"):
        cut_heads(model, Report())

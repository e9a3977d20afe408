"""YOLO decoding and suppression in ncnn: the boxes that the function's own body finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from qconvert.backends.ncnn.lower import lower
from qconvert.functions.detections import detections
from qconvert.functions.region import GridHead, RegionHead
from qconvert.functions.yolo import YoloHead
from qconvert.graph import IR_VERSION, OPSET
from qconvert.verification.detections import align
from tests.backends.ncnn.support import deploy, simulate

if TYPE_CHECKING:
    from qconvert.quant import F32

ANCHORS = ((6.0, 8.0), (20.0, 10.0))
SIZE = (48, 32)


@dataclass(frozen=True)
class Case:
    id: str
    heads: tuple[YoloHead | RegionHead | GridHead, ...]
    low: float = -3.0
    high: float = 3.0

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        if isinstance(self.heads[0], GridHead):
            return [(1, self.heads[0].numbers)]
        sides = ((4, 6), (8, 12))
        return [
            (1, len(head.anchors) * head.entries, *side)
            for head, side in zip(self.heads, sides, strict=False)
            if not isinstance(head, GridHead)
        ]


CASES = [
    Case("yolo", (YoloHead(ANCHORS, 3, SIZE),)),
    Case("one_class", (YoloHead(ANCHORS, 1, SIZE),)),
    Case("two_heads", (YoloHead(ANCHORS, 3, SIZE), YoloHead(((9.0, 30.0),), 3, SIZE))),
    Case("centres_beyond_the_cell", (YoloHead(ANCHORS, 3, SIZE, scale_x_y=1.2),)),
    Case("new_coordinates", (YoloHead(ANCHORS, 3, SIZE, new_coords=True),), 0.02, 1.0),
    Case("gaussian", (YoloHead(ANCHORS, 3, SIZE, gaussian=True),)),
    Case("region", (RegionHead(((1.0, 2.0), (3.0, 1.0)), 3, softmax=True),)),
    Case("region_of_sigmoids", (RegionHead(((1.0, 2.0), (3.0, 1.0)), 3),)),
    Case("grid", (GridHead(4, 2, 3),), 0.1, 1.0),
]


def table(case: Case) -> ir.Model:
    """A model that is one detection function."""
    inputs = [
        ir.val(f"map_{index}", dtype=ir.DataType.FLOAT, shape=shape)
        for index, shape in enumerate(case.shapes)
    ]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": OPSET, "qconvert": 1}, name="net")
    model = ir.Model(graph, ir_version=IR_VERSION)
    node = detections(model, inputs, case.heads, "detections")
    graph.append(node)
    node.outputs[0].name = "detections"
    graph.outputs.append(node.outputs[0])
    return model


def ordered(rows: F32) -> F32:
    """Rows by label and score."""
    return rows[np.lexsort((-rows[:, 1], rows[:, 0]))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_ncnn_finds_the_boxes_that_the_function_finds(case: Case, rng: np.random.Generator) -> None:
    model = table(case)
    feed = {
        f"map_{index}": rng.uniform(case.low, case.high, shape).astype(np.float32)
        for index, shape in enumerate(case.shapes)
    }

    artifact = deploy(model, feed)

    expected = simulate(model, feed)["detections"]
    assert artifact.written.extra["first_label"] == {"detections": 1}
    found = artifact.outputs["detections"] - np.array([1, 0, 0, 0, 0, 0], np.float32)
    assert len(expected) > 3
    assert (np.diff(found[:, 1]) <= 0).all()
    np.testing.assert_allclose(ordered(found), ordered(expected), rtol=1e-4, atol=1e-5)
    assert artifact.kinds.count("DetectionOutput") == 1
    assert align(expected, found)[0].shape == align(expected, found)[1].shape


def test_the_model_keeps_its_function() -> None:
    model = table(CASES[0])

    assert lower(model).problems == []
    [function] = model.functions.values()
    assert any(node.op_type == "NonMaxSuppression" for node in function)

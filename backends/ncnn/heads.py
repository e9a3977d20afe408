"""YOLO decoding with non-maximum suppression, on layers that ncnn has.

ncnn's own Yolov3DetectionOutput computes something else: it keeps one class a box, suppresses
across classes, counts labels from 1, ignores scale_x_y, and its confidence is
1 / (1 + exp(-b) (1 + exp(-c))), which is not sigmoid(b) sigmoid(c). Its DetectionOutput, made for
SSD, suppresses class by class among all boxes above the threshold, as Darknet does. So the decoding
is done by plain layers, and the rest of the function's body, from NonMaxSuppression on, becomes a
DetectionOutput whose priors leave the boxes as they are.

Reference: Tencent/ncnn src/layer/yolov3detectionoutput.cpp, src/layer/detectionoutput.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.backends.ncnn.registry import lowers
from qconvert.functions import detections
from qconvert.graph import DOMAIN

if TYPE_CHECKING:
    from qconvert.backends.ncnn.context import Context
    from qconvert.backends.ncnn.net import Blob
    from qconvert.formats.ncnn_param import Param

__all__ = ["DECODERS", "FIRST_LABEL", "expose_suppression"]

DECODERS: Final = frozenset(
    {
        detections.YOLO_DETECTIONS,
        f"Gaussian{detections.YOLO_DETECTIONS}",
        detections.REGION_DETECTIONS,
        detections.GRID_DETECTIONS,
    }
)
"""Functions that end in a suppression of boxes."""

FIRST_LABEL: Final = "first_label"
"""Detail of a layer whose labels do not begin at 0: 0 is the background there."""

_SUPPRESS: Final = "Suppress"
_NO_LIMIT: Final = 1 << 30


def expose_suppression(model: ir.Model) -> None:
    """Let the bodies of `DECODERS` end in one `Suppress` node, in place.

    Boxes [1, N, 4] and scores [1, classes, N] go in, rows [K, 6] come out.
    """
    for function in model.functions.values():
        if function.domain != DOMAIN or function.name not in DECODERS:
            continue
        graph = function.graph
        last = next(node for node in graph if node.op_type == "NonMaxSuppression")
        boxes, scores, _, overlap, confidence = last.inputs
        attributes = {
            name: ir.AttrTensor(name, _constant(value))
            for name, value in (("nms", overlap), ("confidence", confidence))
        }
        [result] = function.outputs
        assert boxes is not None
        assert scores is not None
        node = ir.Node(DOMAIN, _SUPPRESS, [boxes, scores], attributes.values(), name=_SUPPRESS)
        node.outputs[0].name, node.outputs[0].type = result.name, result.type
        node.outputs[0].shape = result.shape
        graph.insert_after(last, node)
        graph.outputs[0] = node.outputs[0]
        _drop_behind(graph, last, keep=node)


def _constant(value: ir.Value | None) -> ir.TensorProtocol:
    """The tensor behind a value that a function's body makes by a Constant node."""
    assert value is not None
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant":
        return producer.attributes["value"].as_tensor()
    assert value.const_value is not None
    return value.const_value


def _drop_behind(graph: ir.Graph, first: ir.Node, *, keep: ir.Node) -> None:
    """Remove `first` and everything that reads it."""
    doomed, pending = {first}, [first]
    while pending:
        for value in pending.pop().outputs:
            for reader in value.consumers():
                if reader not in doomed:
                    doomed.add(reader)
                    pending.append(reader)
    for node in reversed([node for node in graph if node in doomed and node is not keep]):
        graph.remove(node, safe=True)


@lowers(*DECODERS, to="DetectionOutput", domain=DOMAIN)
def _decoder(_: Context, node: ir.Node) -> None:
    """Never called: `expose_suppression` takes these functions apart."""
    raise AssertionError(node.op_type)


@lowers(_SUPPRESS, to="", domain=DOMAIN)
def _suppress(ctx: Context, node: ir.Node) -> None:
    """Boxes and scores → DetectionOutput: [K, 6] label (from 1), score, x0, y0, x1, y1.

    With the prior (0, 0, 1, 1) and variances of 1 a location is the centre less 0.5, and the
    logarithm of the size.
    """
    count, classes = ctx.shape(node.inputs[0])[1], ctx.shape(node.inputs[1])[1]
    boxes = ctx.reshape(ctx.blob(node.inputs[0]), (count, 4), "boxes")
    scores = ctx.reshape(ctx.blob(node.inputs[1]), (classes, count), "scores")
    rows = ctx.layer("Permute", [scores], {0: 1}, shape=(count, classes), part="rows")
    empty = ctx.data("background", np.zeros((count, 1), np.float32))
    confidence = ctx.layer("Concat", [empty, rows], {0: 1}, shape=(count, classes + 1), part="all")
    prior = np.tile(np.array([0, 0, 1, 1], np.float32), count)
    priors = ctx.data("priors", np.stack([prior, np.ones_like(prior)]))
    flat = [
        ctx.reshape(_locations(ctx, boxes), (4 * count,), "locations"),
        ctx.reshape(confidence, (count * (classes + 1),), "confidence"),
    ]
    thresholds = [node.attributes[name].as_tensor().numpy() for name in ("nms", "confidence")]
    nms, least = (float(np.asarray(value).reshape(-1)[0]) for value in thresholds)
    params: dict[int, Param] = {0: classes + 1, 1: nms, 2: _NO_LIMIT, 3: _NO_LIMIT, 4: least}
    draft = ctx.draft("DetectionOutput", [*flat, priors], params, shapes=[(1, 6)])
    draft.details[FIRST_LABEL] = 1
    ctx.bind_rows(node.outputs[0], draft.output)


def _locations(ctx: Context, boxes: Blob) -> Blob:
    """Corners [N, 4] as centres less 0.5 and logarithms of sizes."""
    rows = boxes.shape[0]
    shape = (rows, 2)
    low, high = (
        ctx.layer(
            "Crop", [boxes], {9: (begin,), 10: (begin + 2,), 11: (1,)}, shape=shape, part=name
        )
        for begin, name in ((0, "low"), (2, "high"))
    )
    size = ctx.layer("BinaryOp", [high, low], {0: 1}, shape=shape, part="size")
    extent = ctx.layer("UnaryOp", [size], {0: 8}, shape=shape, part="log_size")
    ends = ctx.layer("BinaryOp", [low, high], {0: 0}, shape=shape, part="ends")
    middle = ctx.layer("BinaryOp", [ends], {0: 2, 1: 1, 2: 0.5}, shape=shape, part="middle")
    centre = ctx.layer("BinaryOp", [middle], {0: 1, 1: 1, 2: 0.5}, shape=shape, part="centre")
    return ctx.layer("Concat", [centre, extent], {0: 1}, shape=(rows, 4), part="locations")

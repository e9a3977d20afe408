"""`qconvert.*Detections`: from the maps that enter detection heads to a table of boxes.

The result is [K, 6]: label (0 is the first class), score, x0, y0, x1, y1 as fractions of the
network's input, best score first; K depends on the image. As in Darknet's detector, a box counts
for every class whose probability (objectness times class score) is above the threshold, and
non-maximum suppression looks at each class alone (get_yolo_detections, do_nms_sort).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from qconvert.functions.build import call
from qconvert.functions.maps import Formula
from qconvert.functions.region import GridHead, RegionHead
from qconvert.functions.yolo import YoloHead
from qconvert.graph import shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    AnyHead: TypeAlias = YoloHead | RegionHead | GridHead

__all__ = [
    "CONFIDENCE",
    "GRID_DETECTIONS",
    "NMS",
    "REGION_DETECTIONS",
    "YOLO_DETECTIONS",
    "detections",
]

CONFIDENCE: Final = 0.25
"""Default threshold of probabilities (AlexeyAB's `detector test`; ncnn's layer)."""

NMS: Final = 0.45
"""Default overlap at which the weaker of two boxes goes (both Darknets; ncnn's layer)."""

YOLO_DETECTIONS: Final = "YoloDetections"
REGION_DETECTIONS: Final = "RegionDetections"
GRID_DETECTIONS: Final = "GridDetections"


def detections(
    model: ir.Model,
    maps: Sequence[ir.Value],
    heads: Sequence[AnyHead],
    name: str,
    *,
    confidence: float = CONFIDENCE,
    nms: float = NMS,
) -> ir.Node:
    """A call that decodes the maps of all heads together, not yet in any graph.

    Args:
        model: Gets the function.
        maps: What enters each head (not what leaves it), [1, n * entries, H, W], or for a grid
            the vector [1, numbers].
        heads: Parameters of each head; one kind, one number of classes.
        name: Name of the node.
        confidence: Probabilities up to this are left out.
        nms: Of two boxes of a class that overlap more than this, the weaker is left out.

    Returns:
        A node whose one output is [K, 6]. Attributes: those of the heads, the lists one after the
        other, with `num` a list; `confidence_threshold` and `nms_threshold`.
    """
    attributes = _attributes(heads)
    attributes |= {"confidence_threshold": confidence, "nms_threshold": nms}

    def body(tape: ir.tape.Tape, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        do = Formula(tape)
        decoded = [_decode(do, x, head) for x, head in zip(inputs, heads, strict=True)]
        if len(decoded) == 1:
            boxes, scores = decoded[0]
        else:
            boxes = do.op("Concat", *(pair[0] for pair in decoded), axis=1)
            scores = do.op("Concat", *(pair[1] for pair in decoded), axis=2)
        return [do.result(_suppress(do, boxes, scores, confidence, nms), ("detections", 6))]

    return call(model, _kind(heads[0]), maps, attributes, body, name=name)


def _kind(head: AnyHead) -> str:
    """The function's name."""
    if isinstance(head, YoloHead):
        return f"Gaussian{YOLO_DETECTIONS}" if head.gaussian else YOLO_DETECTIONS
    return REGION_DETECTIONS if isinstance(head, RegionHead) else GRID_DETECTIONS


def _attributes(
    heads: Sequence[AnyHead],
) -> dict[str, int | float | str | Sequence[int] | Sequence[float]]:
    """Attributes of several heads: anchors and what may differ per head, the rest once."""
    joined = heads[0].attributes()
    anchored = [head for head in heads if not isinstance(head, GridHead)]
    if anchored:
        joined["num"] = [len(head.anchors) for head in anchored]
        joined["anchors"] = [side for head in anchored for pair in head.anchors for side in pair]
    scaled = [head.scale_x_y for head in heads if isinstance(head, YoloHead)]
    if scaled:
        joined["scale_x_y"] = scaled
    return joined


def _decode(do: Formula, x: ir.Value, head: AnyHead) -> tuple[ir.Value, ir.Value]:
    """Corner boxes [1, N, 4] and scores [1, classes, N] of one head."""
    if isinstance(head, GridHead):
        return _decode_grid(do, x, head)
    _, _, height, width = shape_of(x)
    parts = head.parts(do, x)
    cells = (width, height)
    network = head.network if isinstance(head, YoloHead) else cells
    anchors = np.array(head.anchors, dtype=np.float32) / np.array(network, dtype=np.float32)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    corner = np.stack([columns.ravel(), rows.ravel()]).astype(np.float32)[None]
    sides = np.array(cells, dtype=np.float32).reshape(1, 2, 1)
    center = do.op("Div", do.op("Add", parts["xy"], corner), sides)
    if isinstance(head, YoloHead) and head.new_coords:
        size = do.op("Mul", do.op("Mul", parts["wh"], parts["wh"]), 4 * anchors[:, :, None])
    else:
        size = do.op("Mul", do.op("Exp", parts["wh"]), anchors[:, :, None])
    first, classes = do.split(parts["scores"], [1, head.classes], 1)
    if isinstance(head, RegionHead) and head.background:
        probability = classes
    else:
        probability = do.op("Mul", classes, first)
    if isinstance(head, YoloHead) and head.gaussian:
        certain = do.op("Sub", 1.0, do.op("ReduceMean", parts["deviations"], do.ints(1)))
        probability = do.op("Mul", probability, certain)
        center = _moved(do, center, size, head.point)
    count = len(head.anchors) * height * width
    turned = do.op("Transpose", probability, perm=[1, 0, 2])
    boxes = do.op("Transpose", _corners(do, center, size, 1), perm=[0, 2, 1])
    return do.reshape(boxes, 1, count, 4), do.reshape(turned, 1, head.classes, count)


def _moved(do: Formula, center: ir.Value, size: ir.Value, point: str) -> ir.Value:
    """The centers of boxes that a Gaussian head places by a corner (get_gaussian_yolo_box)."""
    if point == "center":
        return center
    return do.op("Add" if point == "left_top" else "Sub", center, do.op("Mul", size, 0.5))


def _corners(do: Formula, center: ir.Value, size: ir.Value, axis: int) -> ir.Value:
    """x0, y0, x1, y1 along `axis`."""
    half = do.op("Mul", size, 0.5)
    return do.op("Concat", do.op("Sub", center, half), do.op("Add", center, half), axis=axis)


def _decode_grid(do: Formula, x: ir.Value, head: GridHead) -> tuple[ir.Value, ir.Value]:
    """The same for YOLO v1 (get_detection_detections in src/detection_layer.c)."""
    parts = head.parts(do, x)
    cells, count = head.side**2, head.side**2 * head.num
    columns, rows = np.meshgrid(np.arange(head.side), np.arange(head.side))
    corner = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32)[:, None]
    xy, wh = do.split(parts["boxes"], [2, 2], 2)
    center = do.op("Div", do.op("Add", xy, corner), float(head.side))
    size = do.op("Mul", wh, wh) if head.square else wh
    confidences = do.reshape(parts["confidences"], cells, head.num, 1)
    classes = do.reshape(parts["classes"], cells, 1, head.classes)
    probability = do.reshape(do.op("Mul", confidences, classes), count, head.classes)
    scores = do.reshape(do.op("Transpose", probability, perm=[1, 0]), 1, head.classes, count)
    return do.reshape(_corners(do, center, size, 2), 1, count, 4), scores


def _suppress(
    do: Formula, boxes: ir.Value, scores: ir.Value, confidence: float, nms: float
) -> ir.Value:
    """Rows [K, 6] from boxes [1, N, 4] and scores [1, classes, N]."""
    most = np.array([np.iinfo(np.int32).max], dtype=np.int64)
    limits = [np.array([value], dtype=np.float32) for value in (nms, confidence)]
    chosen = do.op("NonMaxSuppression", boxes, scores, most, *limits)
    _, label, place = do.split(chosen, [1, 1, 1], 1)
    score = do.op(
        "GatherND", do.op("Squeeze", scores, do.ints(0)), do.op("Concat", label, place, axis=1)
    )
    box = do.op("GatherND", do.op("Squeeze", boxes, do.ints(0)), place)
    number = do.op("Cast", label, to=1)
    rows = do.op("Concat", number, do.op("Unsqueeze", score, do.ints(1)), box, axis=1)
    _, order = do.outputs("TopK", [score, do.op("Shape", score)], 2, axis=0)
    return do.op("Gather", rows, order, axis=0)

"""DetectionOutput: SSD's decoding and non-maximum suppression, as a model-local function.

Reference: weiliu89/caffe branch ssd, src/caffe/layers/detection_output_layer.cpp and
src/caffe/util/bbox_util.cpp (DecodeBBox, ApplyNMSFast).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from qconvert.functions import build, constants

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["KIND", "Code", "DetectionOutput", "detection_output"]

KIND: Final = "DetectionOutput"

Code: TypeAlias = Literal["corner", "center_size", "corner_size"]
"""How a location prediction moves its prior."""


@dataclass(frozen=True, slots=True)
class DetectionOutput:
    """The parameters of one layer; the attributes of the calling node have the same names.

    Attributes:
        classes: Background included.
        priors: How many prior boxes.
        share_location: One location per prior; else one per prior and class.
        background: Class that is never reported; -1: none.
        code: How locations are coded.
        variance_encoded: Whether the training target held the variances, so that they are not
            applied here.
        confidence_threshold: A score must be above it.
        nms_threshold: Boxes of a class may overlap so much (intersection over union).
        nms_top_k: Best scores of a class that are looked at; -1: all.
        keep_top_k: Best detections of all classes that stay; -1: all.
    """

    classes: int
    priors: int
    share_location: bool
    background: int
    code: Code
    variance_encoded: bool
    confidence_threshold: float
    nms_threshold: float
    nms_top_k: int
    keep_top_k: int

    @property
    def reported(self) -> list[int]:
        """The classes that can be reported."""
        return [label for label in range(self.classes) if label != self.background]

    def attributes(self) -> Mapping[str, int | float | str]:
        """For the calling node."""
        return {
            "classes": self.classes,
            "share_location": int(self.share_location),
            "background": self.background,
            "code": self.code,
            "variance_encoded": int(self.variance_encoded),
            "confidence_threshold": self.confidence_threshold,
            "nms_threshold": self.nms_threshold,
            "nms_top_k": self.nms_top_k,
            "keep_top_k": self.keep_top_k,
        }


def detection_output(
    model: ir.Model, inputs: Sequence[ir.Value], parameters: DetectionOutput, *, name: str
) -> ir.Node:
    """A call of the function.

    Args:
        model: Gets the function.
        inputs: Locations [1, priors * 4 (* classes)], confidences [1, priors * classes], and
            priors [1, 2, priors * 4] as PriorBox gives them.
        parameters: The layer's.
        name: Of the node.

    Returns:
        The node; its output is [1, 1, K, 7]: image, label, score, x0, y0, x1, y1, by label, then
        by falling score. K depends on the data; where nothing is found it is one row of -1.
    """

    def body(tape: ir.tape.Tape, values: Sequence[ir.Value]) -> Sequence[ir.Value]:
        result = _Body(tape, parameters).build(values)
        result.type = ir.TensorType(ir.DataType.FLOAT)
        result.shape = ir.Shape([1, 1, None, 7])
        return [result]

    return build.call(model, KIND, inputs, parameters.attributes(), body, name=name)


class _Body:
    """Writes the function's body."""

    def __init__(self, tape: ir.tape.Tape, parameters: DetectionOutput) -> None:
        self.tape = tape
        self.layer = parameters

    def build(self, values: Sequence[ir.Value]) -> ir.Value:
        """The whole of it; `values` are locations, confidences and priors."""
        boxes = self._decode(values[0], values[2])
        scores, candidates = self._candidates(boxes, values[1])
        rows, found = self._suppress(scores, candidates)
        if self.layer.keep_top_k >= 0:
            rows = self._best(rows, found)
        return self._never_empty(rows)

    def _ints(self, *numbers: int) -> ir.Value:
        return constants.integers(self.tape, numbers)

    def _columns(self, x: ir.Value, begin: int, end: int) -> ir.Value:
        """Entries `begin` to `end` of the last axis."""
        cut = (self._ints(begin), self._ints(end), self._ints(-1))
        return self.tape.op("Slice", [x, *cut])

    def _decode(self, locations: ir.Value, priors: ir.Value) -> ir.Value:
        """Boxes as corners: [1 or classes, priors, 4]."""
        tape, layer = self.tape, self.layer
        columns = 1 if layer.share_location else layer.classes
        shape = self._ints(layer.priors, columns, 4)
        moves = tape.op("Reshape", [locations, shape])
        moves = tape.op("Transpose", [moves], {"perm": [1, 0, 2]})
        table = tape.op("Reshape", [priors, self._ints(2, layer.priors, 4)])
        prior = tape.op("Gather", [table, self._ints(0)], {"axis": 0})
        if not layer.variance_encoded:
            variance = tape.op("Gather", [table, self._ints(1)], {"axis": 0})
            moves = tape.op("Mul", [moves, variance])
        if layer.code == "corner":
            return tape.op("Add", [prior, moves])
        low, high = self._columns(prior, 0, 2), self._columns(prior, 2, 4)
        size = tape.op("Sub", [high, low])
        if layer.code == "corner_size":
            sizes = tape.op("Concat", [size, size], {"axis": -1})
            return tape.op("Add", [prior, tape.op("Mul", [moves, sizes])])
        half = constants.floats(tape, 0.5)
        centre = tape.op("Mul", [tape.op("Add", [low, high]), half])
        shift = tape.op("Mul", [self._columns(moves, 0, 2), size])
        centre = tape.op("Add", [centre, shift])
        grown = tape.op("Mul", [tape.op("Exp", [self._columns(moves, 2, 4)]), size])
        arm = tape.op("Mul", [grown, half])
        corners = [tape.op("Sub", [centre, arm]), tape.op("Add", [centre, arm])]
        return tape.op("Concat", corners, {"axis": -1})

    def _candidates(self, boxes: ir.Value, confidences: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The best of each class: scores [M, K] falling, and their boxes [M, K, 4]."""
        tape, layer = self.tape, self.layer
        labels = self._ints(*layer.reported)
        table = tape.op("Reshape", [confidences, self._ints(layer.priors, layer.classes)])
        table = tape.op("Transpose", [table], {"perm": [1, 0]})
        table = tape.op("Gather", [table, labels], {"axis": 0})
        count = min(layer.nms_top_k, layer.priors) if layer.nms_top_k >= 0 else layer.priors
        scores, places = tape.op_multi_out(
            "TopK", [table, self._ints(count)], {"axis": 1}, num_outputs=2
        )
        if layer.share_location:
            flat = tape.op("Reshape", [boxes, self._ints(layer.priors, 4)])
            return scores, tape.op("Gather", [flat, places], {"axis": 0})
        own = tape.op("Gather", [boxes, labels], {"axis": 0})
        index = tape.op("Unsqueeze", [places, self._ints(-1)])
        index = tape.op("Expand", [index, self._ints(len(layer.reported), count, 4)])
        return scores, tape.op("GatherElements", [own, index], {"axis": 1})

    def _suppress(self, scores: ir.Value, boxes: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Non-maximum suppression, the classes side by side as a batch: rows [S, 7], scores [S]."""
        tape, layer = self.tape, self.layer
        kept = tape.op(
            "NonMaxSuppression",
            [
                boxes,
                tape.op("Unsqueeze", [scores, self._ints(1)]),
                self._ints(layer.priors),
                constants.floats(tape, [layer.nms_threshold]),
                constants.floats(tape, [layer.confidence_threshold]),
            ],
        )
        pairs = tape.op("Gather", [kept, self._ints(0, 2)], {"axis": 1})
        column = self._ints(1)
        found = tape.op("GatherND", [scores, pairs])
        names = constants.floats(tape, [float(label) for label in layer.reported])
        label = tape.op("Gather", [names, self._columns(kept, 0, 1)], {"axis": 0})
        image = tape.op("Sub", [label, label])
        score = tape.op("Unsqueeze", [found, column])
        corners = tape.op("GatherND", [boxes, pairs])
        return tape.op("Concat", [image, label, score, corners], {"axis": 1}), found

    def _best(self, rows: ir.Value, scores: ir.Value) -> ir.Value:
        """The `keep_top_k` rows with the highest scores, in their old order."""
        tape = self.tape
        limit = tape.op("Min", [tape.op("Shape", [scores]), self._ints(self.layer.keep_top_k)])
        _, places = tape.op_multi_out("TopK", [scores, limit], {"axis": 0}, num_outputs=2)
        ordered, _ = tape.op_multi_out(
            "TopK", [places, limit], {"axis": 0, "largest": 0}, num_outputs=2
        )
        return tape.op("Gather", [rows, ordered], {"axis": 0})

    def _never_empty(self, rows: ir.Value) -> ir.Value:
        """[1, 1, K, 7] with a row of -1 where there is none."""
        tape = self.tape
        filler = constants.array(tape, np.full((1, 7), -1, np.float32))
        padded = tape.op("Concat", [rows, filler], {"axis": 0})
        count = tape.op("Shape", [rows], {"start": 0, "end": 1})
        count = tape.op("Max", [count, self._ints(1)])
        cut = tape.op("Slice", [padded, self._ints(0), count, self._ints(0)])
        return tape.op("Unsqueeze", [cut, self._ints(0, 1)])

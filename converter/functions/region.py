"""`qconvert.Region` and `qconvert.Grid`: the heads of YOLO v2 and v1, as Darknet computes them.

A region head takes a map [1, n * (coords + 1 + classes), H, W] and returns one of the same shape:
x, y and the objectness pass a sigmoid, the classes a softmax or a sigmoid (forward_region_layer
in pjreddie's src/region_layer.c). With `background` the softmax takes the objectness' place in.

A grid head (Darknet's [detection]) takes a vector: class scores of all side² cells, then the
confidences of all boxes, then the boxes; only a softmax over classes may change it
(forward_detection_layer in src/detection_layer.c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qconvert.functions.build import call
from qconvert.functions.maps import Formula
from qconvert.graph import shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

__all__ = ["GRID", "REGION", "GridHead", "RegionHead", "grid", "region"]

REGION = "Region"
GRID = "Grid"


@dataclass(frozen=True, slots=True)
class RegionHead:
    """Parameters of a YOLO v2 head.

    Attributes:
        anchors: (width, height) of the anchors, in cells of the map.
        classes: Number of classes.
        coords: Coordinates of a box: 4, or more with a mask.
        softmax: Classes exclude each other; else each has a sigmoid.
        background: There is a background class and no objectness.
    """

    anchors: tuple[tuple[float, float], ...]
    classes: int
    coords: int = 4
    softmax: bool = False
    background: bool = False

    @property
    def entries(self) -> int:
        """Channels of one anchor."""
        return self.coords + 1 + self.classes

    def attributes(self) -> dict[str, int | float | str | Sequence[int] | Sequence[float]]:
        """The parameters as node attributes; `anchors` lies flat."""
        return {
            "anchors": [side for anchor in self.anchors for side in anchor],
            "num": len(self.anchors),
            "classes": self.classes,
            "coords": self.coords,
            "softmax": int(self.softmax),
            "background": int(self.background),
        }

    def parts(self, do: Formula, x: ir.Value) -> dict[str, ir.Value]:
        """What the head makes of its map [1, n * entries, H, W], apart.

        Returns:
            `xy` and `wh` [n, 2, H * W], `rest` [n, coords - 2, H * W] (wh and what follows), and
            `scores` [n, 1 + classes, H * W]: objectness (or background), then the classes.
        """
        _, _, height, width = shape_of(x)
        table = do.reshape(x, len(self.anchors), self.entries, height * width)
        xy, rest, scores = do.split(table, [2, self.coords - 2, 1 + self.classes], 1)
        if self.softmax and self.background:
            activated = do.op("Softmax", scores, axis=1)
        else:
            first, classes = do.split(scores, [1, self.classes], 1)
            classes = (
                do.op("Softmax", classes, axis=1) if self.softmax else do.op("Sigmoid", classes)
            )
            first = first if self.background else do.op("Sigmoid", first)
            activated = do.op("Concat", first, classes, axis=1)
        wh = rest if self.coords == 4 else do.split(rest, [2, self.coords - 4], 1)[0]
        return {"xy": do.op("Sigmoid", xy), "wh": wh, "rest": rest, "scores": activated}


@dataclass(frozen=True, slots=True)
class GridHead:
    """Parameters of a YOLO v1 head.

    Attributes:
        side: Cells of a side of the image.
        num: Boxes of a cell.
        classes: Number of classes.
        softmax: Classes exclude each other.
        square: The network gives the roots of widths and heights.
    """

    side: int
    num: int
    classes: int
    softmax: bool = False
    square: bool = False

    @property
    def numbers(self) -> int:
        """Length of the vector."""
        return self.side**2 * (self.classes + 5 * self.num)

    def attributes(self) -> dict[str, int | float | str | Sequence[int] | Sequence[float]]:
        """The parameters as node attributes."""
        return {
            "side": self.side,
            "num": self.num,
            "classes": self.classes,
            "softmax": int(self.softmax),
            "square": int(self.square),
        }

    def parts(self, do: Formula, x: ir.Value) -> dict[str, ir.Value]:
        """What the head makes of its vector [1, numbers], apart.

        Returns:
            `classes` [side², classes], `confidences` [side², num], `boxes` [side², num, 4].
        """
        cells = self.side**2
        lengths = [cells * self.classes, cells * self.num, cells * self.num * 4]
        classes, confidences, boxes = do.split(x, lengths, 1)
        classes = do.reshape(classes, cells, self.classes)
        return {
            "classes": do.op("Softmax", classes, axis=1) if self.softmax else classes,
            "confidences": do.reshape(confidences, cells, self.num),
            "boxes": do.reshape(boxes, cells, self.num, 4),
        }


def region(model: ir.Model, x: ir.Value, head: RegionHead, name: str) -> ir.Node:
    """A call of the head on the map `x` [1, n * entries, H, W], not yet in any graph."""

    def body(tape: ir.tape.Tape, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        do = Formula(tape)
        parts = head.parts(do, inputs[0])
        joined = do.op("Concat", parts["xy"], parts["rest"], parts["scores"], axis=1)
        shape = shape_of(x)
        return [do.result(do.reshape(joined, *shape), shape)]

    return call(model, REGION, [x], head.attributes(), body, name=name)


def grid(model: ir.Model, x: ir.Value, head: GridHead, name: str) -> ir.Node:
    """A call of the head on the vector `x` [1, numbers], not yet in any graph."""

    def body(tape: ir.tape.Tape, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        do = Formula(tape)
        parts = head.parts(do, inputs[0])
        flat = [do.reshape(parts[key], 1, -1) for key in ("classes", "confidences", "boxes")]
        return [do.result(do.op("Concat", *flat, axis=1), shape_of(x))]

    return call(model, GRID, [x], head.attributes(), body, name=name)

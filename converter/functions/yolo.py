"""`qconvert.Yolo` and `qconvert.GaussianYolo`: YOLO v3 and later heads, as Darknet computes them.

A head takes a map [1, n * (5 + classes), H, W] and returns a map of the same shape: for each of n
anchors x, y, w, h, objectness and the classes, of which all but w and h pass a sigmoid, and
x, y := x, y * scale_x_y - (scale_x_y - 1) / 2. With `new_coords` nothing is activated here, since
the layer before has done it. (forward_yolo_layer in AlexeyAB's src/yolo_layer.c.)

The Gaussian head has a deviation behind each of x, y, w and h, so 9 + classes entries
(forward_gaussian_yolo_layer in src/gaussian_yolo_layer.c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qconvert.functions.build import call
from qconvert.functions.maps import Formula
from qconvert.graph import shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

__all__ = ["GAUSSIAN_YOLO", "YOLO", "YoloHead", "yolo"]

YOLO = "Yolo"
GAUSSIAN_YOLO = "GaussianYolo"


@dataclass(frozen=True, slots=True)
class YoloHead:
    """Parameters of one head.

    Attributes:
        anchors: (width, height) of this head's own anchors, in pixels of the network's input.
        classes: Number of classes.
        network: (width, height) of the network's input.
        scale_x_y: How far a center may leave its cell: 1 not at all.
        new_coords: The map is activated already, and sizes are (2w)² instead of exp(w).
        gaussian: Each coordinate has a deviation.
        point: What x and y mean in a Gaussian head.
    """

    anchors: tuple[tuple[float, float], ...]
    classes: int
    network: tuple[int, int]
    scale_x_y: float = 1.0
    new_coords: bool = False
    gaussian: bool = False
    point: Literal["center", "left_top", "right_bottom"] = "center"

    @property
    def entries(self) -> int:
        """Channels of one anchor."""
        return (9 if self.gaussian else 5) + self.classes

    @property
    def kind(self) -> str:
        """The function's name."""
        return GAUSSIAN_YOLO if self.gaussian else YOLO

    def attributes(self) -> dict[str, int | float | str | Sequence[int] | Sequence[float]]:
        """The parameters as node attributes; `anchors` lies flat."""
        return {
            "anchors": [side for anchor in self.anchors for side in anchor],
            "num": len(self.anchors),
            "classes": self.classes,
            "network_size": list(self.network),
            "scale_x_y": self.scale_x_y,
            "new_coords": int(self.new_coords),
            **({"point": self.point} if self.gaussian else {}),
        }

    def parts(self, do: Formula, x: ir.Value) -> dict[str, ir.Value]:
        """What the head makes of its map, apart.

        Args:
            do: Writes the formulas.
            x: The map that enters the head, [1, n * entries, H, W].

        Returns:
            `xy` and `wh` [n, 2, H * W], `scores` [n, 1 + classes, H * W] (objectness first), and
            for a Gaussian head `deviations` [n, 4, H * W] of x, y, w and h.
        """
        _, _, height, width = shape_of(x)
        table = do.reshape(x, len(self.anchors), self.entries, height * width)
        if self.gaussian:
            entries = do.split(table, [1] * 8 + [1 + self.classes], 1)
            xy = do.op("Concat", entries[0], entries[2], axis=1)
            wh = do.op("Concat", entries[4], entries[6], axis=1)
            deviations = do.op("Concat", *entries[1:8:2], axis=1)
            return {
                "xy": self._spread(do, do.op("Sigmoid", xy)),
                "wh": wh,
                "scores": do.op("Sigmoid", entries[8]),
                "deviations": do.op("Sigmoid", deviations),
            }
        xy, wh, scores = do.split(table, [2, 2, 1 + self.classes], 1)
        if not self.new_coords:
            xy, scores = do.op("Sigmoid", xy), do.op("Sigmoid", scores)
        return {"xy": self._spread(do, xy), "wh": wh, "scores": scores}

    def _spread(self, do: Formula, xy: ir.Value) -> ir.Value:
        """Centers that may leave their cell."""
        if self.scale_x_y == 1:
            return xy
        return do.op("Sub", do.op("Mul", xy, self.scale_x_y), (self.scale_x_y - 1) / 2)


def yolo(model: ir.Model, x: ir.Value, head: YoloHead, name: str) -> ir.Node:
    """A call of the head on the map `x` [1, n * entries, H, W], not yet in any graph."""

    def body(tape: ir.tape.Tape, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        do = Formula(tape)
        parts = head.parts(do, inputs[0])
        if head.gaussian:
            xy, wh, deviations = (
                do.split(parts[key], sizes, 1)
                for key, sizes in (("xy", [1, 1]), ("wh", [1, 1]), ("deviations", [1] * 4))
            )
            means = [xy[0], xy[1], wh[0], wh[1]]
            pairs = [each for pair in zip(means, deviations, strict=True) for each in pair]
            joined = do.op("Concat", *pairs, parts["scores"], axis=1)
        else:
            joined = do.op("Concat", parts["xy"], parts["wh"], parts["scores"], axis=1)
        shape = shape_of(x)
        return [do.result(do.reshape(joined, *shape), shape)]

    return call(model, head.kind, [x], head.attributes(), body, name=name)

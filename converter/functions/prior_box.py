"""PriorBox: SSD's anchors for one feature map, as a model-local function.

Reference: weiliu89/caffe branch ssd, src/caffe/layers/prior_box_layer.cpp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.functions import build, constants
from qconvert.graph import shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

__all__ = ["KIND", "PriorBox", "prior_box"]

KIND: Final = "PriorBox"


@dataclass(frozen=True, slots=True)
class PriorBox:
    """The parameters of one layer; the attributes of the calling node have the same names.

    Attributes:
        min_sizes: At least one; their fractions are dropped, as SSD does.
        max_sizes: None, or one per min size; each adds a box of side sqrt(min * max).
        aspect_ratios: As given, before `flip`; 1 is always there.
        flip: Whether each ratio's reciprocal is added.
        clip: Whether boxes are cut to 0..1.
        variances: Four.
        image: Width and height that boxes are relative to.
        step: Distance of box centres in the image, x and y.
        offset: Where in its cell a box has its centre, in cells.
    """

    min_sizes: tuple[float, ...]
    max_sizes: tuple[float, ...]
    aspect_ratios: tuple[float, ...]
    flip: bool
    clip: bool
    variances: tuple[float, float, float, float]
    image: tuple[int, int]
    step: tuple[float, float]
    offset: float

    @property
    def ratios(self) -> list[float]:
        """Every ratio but 1, in order, without repetitions."""
        found = [1.0]
        for ratio in self.aspect_ratios:
            if any(abs(ratio - known) < 1e-6 for known in found):
                continue
            found.append(ratio)
            if self.flip:
                found.append(1 / ratio)
        return [value for value in found if abs(value - 1) >= 1e-6]

    def sizes(self) -> npt.NDArray[np.float64]:
        """Width and height of the boxes of a cell, in image pixels: [boxes, 2]."""
        rows: list[tuple[float, float]] = []
        for index, size in enumerate(self.min_sizes):
            least = int(size)
            rows.append((least, least))
            if self.max_sizes:
                side = math.sqrt(least * int(self.max_sizes[index]))
                rows.append((side, side))
            rows += [(least * math.sqrt(ratio), least / math.sqrt(ratio)) for ratio in self.ratios]
        return np.array(rows, np.float64)

    def count(self) -> int:
        """Boxes per cell."""
        per_size = 1 + bool(self.max_sizes) + len(self.ratios)
        return len(self.min_sizes) * per_size

    def attributes(self) -> Mapping[str, int | float | Sequence[float]]:
        """For the calling node; empty lists are left out."""
        rows: dict[str, int | float | Sequence[float]] = {
            "min_sizes": [float(int(size)) for size in self.min_sizes],
            "flip": int(self.flip),
            "clip": int(self.clip),
            "variances": list(self.variances),
            "image_width": self.image[0],
            "image_height": self.image[1],
            "step_width": float(self.step[0]),
            "step_height": float(self.step[1]),
            "offset": float(self.offset),
        }
        if self.max_sizes:
            rows["max_sizes"] = [float(int(size)) for size in self.max_sizes]
        if self.aspect_ratios:
            rows["aspect_ratios"] = list(self.aspect_ratios)
        return rows


def prior_box(
    model: ir.Model, inputs: Sequence[ir.Value], parameters: PriorBox, *, name: str
) -> ir.Node:
    """A call of the function.

    Args:
        model: Gets the function.
        inputs: The feature map [N, C, H, W] and the image; only their shapes matter.
        parameters: The layer's.
        name: Of the node.

    Returns:
        The node; its output is [1, 2, H * W * boxes * 4]: corners relative to the image, row by
        row, cell by cell, box by box; then the variances.
    """
    height, width = shape_of(inputs[0])[2:]

    def body(tape: ir.tape.Tape, _: Sequence[ir.Value]) -> Sequence[ir.Value]:
        return [_body(tape, parameters, height, width)]

    return build.call(model, KIND, inputs, parameters.attributes(), body, name=name)


def _body(tape: ir.tape.Tape, box: PriorBox, height: int, width: int) -> ir.Value:
    """The function's body; constants grow with H + W, not with H * W."""
    sizes = box.sizes()
    corners = []
    for sign in (-1, 1):
        for axis, cells in ((0, width), (1, height)):
            centres = (np.arange(cells) + box.offset) * box.step[axis]
            edges = (centres[:, None] + sign * sizes[None, :, axis] / 2) / box.image[axis]
            shape = (1, width, -1, 1) if axis == 0 else (height, 1, -1, 1)
            corners.append(constants.array(tape, edges.astype(np.float32).reshape(shape)))
    grid = constants.integers(tape, [height, width, len(sizes), 1])
    boxes = tape.op("Concat", [tape.op("Expand", [c, grid]) for c in corners], {"axis": 3})
    if box.clip:
        limits = [constants.floats(tape, limit) for limit in (0, 1)]
        boxes = tape.op("Clip", [boxes, *limits])
    variances = constants.floats(tape, box.variances)
    rows = constants.integers(tape, [height, width, len(sizes), 4])
    flat = constants.integers(tape, [1, 1, -1])
    result = tape.op(
        "Concat",
        [
            tape.op("Reshape", [boxes, flat]),
            tape.op("Reshape", [tape.op("Expand", [variances, rows]), flat]),
        ],
        {"axis": 1},
    )
    result.type = ir.TensorType(ir.DataType.FLOAT)
    result.shape = ir.Shape([1, 2, height * width * len(sizes) * 4])
    return result

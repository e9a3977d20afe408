"""What convolution and pooling share: sizes per axis and paddings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Builder, Dims

__all__ = ["SAME_LOWER", "SAME_UPPER", "Window", "extents", "pad", "paddings", "same"]

SAME_UPPER: Final = -233
SAME_LOWER: Final = -234


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window over 1 to 3 axes, outermost first.

    Attributes:
        kernel: Its size, >= 1.
        strides: Its steps, >= 1.
        dilations: Distance of its elements, >= 1.
    """

    kernel: Dims
    strides: Dims
    dilations: Dims

    @property
    def extent(self) -> Dims:
        """How far it reaches."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def out(self, size: Dims, begin: Dims, end: Dims) -> Dims:
        """Number of positions on padded axes, rounded down; below 1 where it does not fit."""
        rows = zip(size, begin, end, self.extent, self.strides, strict=True)
        return tuple((n + p + q - e) // s + 1 for n, p, q, e, s in rows)


def extents(b: Builder, key: int, default: int, rank: int) -> Dims:
    """Positive parameters `key` (w), `key + 10` (h), `key + 20` (d), outermost first.

    Those of h and d default to that of w.
    """
    width = b.positive(key, default)
    rest = [b.positive(key + 10 * step, width) for step in range(1, rank)]
    return (*reversed(rest), width)


def paddings(layer: Layer, rank: int) -> tuple[Dims, Dims]:
    """Paddings of a convolution as given: before and behind, outermost first.

    Parameters 4 left, 15 right, 14 top, 16 bottom, 24 front, 17 behind, each with the one before
    it as default.
    """
    left = layer.int(4, 0)
    right = layer.int(15, left)
    top = layer.int(14, left)
    bottom = layer.int(16, top)
    front = layer.int(24, left)
    behind = layer.int(17, front)
    return (front, top, left)[3 - rank :], (behind, bottom, right)[3 - rank :]


def same(b: Builder, window: Window, size: Dims, *, lower: bool) -> tuple[Dims, Dims]:
    """Paddings that make ceil(size / stride) positions; the odd one behind, or before.

    Raises:
        UnsupportedError: If one axis wants padding and another, where the stride is larger than
            the window, less than none: ncnn then moves the image by half of what is too much.
    """
    totals = [
        extent + (n - 1) // stride * stride - n
        for n, extent, stride in zip(size, window.extent, window.strides, strict=True)
    ]
    if max(totals) <= 0:
        return (0,) * len(size), (0,) * len(size)
    if min(totals) < 0:
        raise b.unsupported(
            f"SAME padding of {list(size)} for a window of {list(window.extent)}",
            f"with steps of {list(window.strides)} it is {totals}, which ncnn takes literally",
        )
    less = tuple(total // 2 for total in totals)
    more = tuple(total - total // 2 for total in totals)
    return (more, less) if lower else (less, more)


def pad(b: Builder, x: ir.Value, begin: Dims, end: Dims, value: float) -> ir.Value:
    """`x` with a border of `value` around its innermost axes."""
    if not any(begin) and not any(end):
        return x
    dims = b.dims(x)
    lead = len(dims) - len(begin)
    sizes = zip((0,) * lead + begin, dims, (0,) * lead + end, strict=True)
    out = [before + n + behind for before, n, behind in sizes]
    zeros = [0] * (lead + 1)
    pads = b.ints([*zeros, *begin, *zeros, *end], "pads")
    return b.emit("Pad", [x, pads, b.scalar(_float32(value), "pad_value")], out, part="pad")


def _float32(value: float) -> float:
    """`value` within float32: padding with -FLT_MAX must stay finite."""
    limit = float(np.finfo(np.float32).max)
    return math.copysign(min(abs(value), limit), value)

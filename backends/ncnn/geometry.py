"""Kernel geometry of convolutions and pools: ONNX attributes with every default filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qconvert.backends.ncnn.registry import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

__all__ = ["Window", "window_of"]


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window over the spatial axes, outermost first.

    Attributes:
        kernel: Size.
        strides: Step.
        dilations: Distance of taps.
        begin: Padding in front.
        end: Padding behind.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """Input elements a window spans."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def window_of(
    node: ir.Node,
    kernel: Sequence[int],
    spatial: Sequence[int],
    output: Sequence[int],
) -> Window:
    """The window of `node`.

    Args:
        node: Conv, MaxPool, AveragePool (or ConvTranspose, whose padding is not automatic here).
        kernel: Kernel size, from the weight or `kernel_shape`.
        spatial: Spatial input size; decides automatic padding.
        output: Spatial output size; pads are enlarged at the end where `ceil_mode` rounds up.

    Raises:
        Refusal: If a pad is negative.
    """
    rank = len(kernel)
    strides = _ints(node, "strides", rank, 1)
    dilations = _ints(node, "dilations", rank, 1)
    pads = _ints(node, "pads", 2 * rank, 0)
    begin, end = list(pads[:rank]), list(pads[rank:])
    mode = node.attributes.get_string("auto_pad", "NOTSET") or "NOTSET"
    if mode == "VALID":
        begin, end = [0] * rank, [0] * rank
    for axis in range(rank):
        extent = dilations[axis] * (kernel[axis] - 1) + 1
        wanted = (output[axis] - 1) * strides[axis] + extent - spatial[axis]
        if mode.startswith("SAME"):
            total = max(wanted, 0)
            begin[axis] = total // 2 if mode == "SAME_UPPER" else total - total // 2
            end[axis] = total - begin[axis]
        else:
            end[axis] = max(end[axis], wanted - begin[axis])
    if min((*begin, *end), default=0) < 0:
        raise Refusal("a pad is negative")
    return Window(tuple(kernel), strides, dilations, tuple(begin), tuple(end))


def _ints(node: ir.Node, name: str, count: int, default: int) -> tuple[int, ...]:
    """An attribute of `count` ints."""
    values = tuple(int(v) for v in node.attributes.get_ints(name, ()) or ())
    return values if len(values) == count else (default,) * count

"""The sums of convolutions and fully connected layers, exact, at the speed of float.

A float product is exact as long as every partial sum is a whole number that the type can hold:
below 2^24 in float32, below 2^53 in float64, in whatever order a matrix product adds. The bound
comes from the weights themselves. What reaches further is summed in int64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from qconvert.integer.program import Codes, Layer, Tensor
    from qconvert.integer.rounding import I64

__all__ = ["Sum", "accumulator_bits", "conv_sums", "fc_sums", "integers"]

_CHUNK: Final = 1 << 22
"""Elements of a matrix that are unfolded at once: memory stays flat however large the map."""
_EXACT: Final = ((24, np.float32), (53, np.float64))


def integers(weight: Tensor) -> I64:
    """What the codes of a weight multiply with."""
    assert weight.values is not None
    codes = weight.values.astype(np.int64)
    if weight.encoding == "log2":
        return np.asarray(np.sign(codes) << np.maximum(np.abs(codes) - 1, 0))
    return codes


@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """A layer's sum, prepared once.

    Attributes:
        layer: The layer.
        weight: Its weight in the type the sums are computed in.
        bias: int64 [outputs], shifted as the layer says.
        source: The tensor it reads.
    """

    layer: Layer
    weight: npt.NDArray[Any]
    bias: I64
    source: Tensor

    @classmethod
    def of(cls, layer: Layer, weight: Tensor, bias: Tensor | None, source: Tensor) -> Sum:
        """Choose the arithmetic for a layer."""
        numbers = integers(weight)
        outputs = numbers.shape[0]
        added = np.zeros(outputs, np.int64)
        if bias is not None:
            assert bias.values is not None
            added = bias.values.astype(np.int64) << int(layer.attributes.get("bias_shift", 0))
        largest = max(abs(source.low), abs(source.high), 1)
        reach = int(np.abs(numbers).reshape(outputs, -1).sum(axis=1).max(initial=0)) * largest
        kind: Any = next((kind for bits, kind in _EXACT if reach < 1 << bits), np.int64)
        return cls(layer, numbers.astype(kind), added, source)


def accumulator_bits(weight: I64, bias: I64, source: Tensor, *, bias_first: bool = True) -> int:
    """The width, two's complement, that holds every sum these weights can make.

    Args:
        weight: [outputs, ...].
        bias: [outputs].
        source: What is multiplied; its codes lie within `low..high`.
        bias_first: Whether partial sums begin at the bias.

    Returns:
        The width for the sums of any subset of products, so that it holds whatever order a
        machine adds in.
    """
    rows = weight.reshape(weight.shape[0], -1)
    products = np.stack([rows * source.low, rows * source.high])
    lowest = np.minimum(products.min(axis=0), 0).sum(axis=1)
    highest = np.maximum(products.max(axis=0), 0).sum(axis=1)
    start = bias if bias_first else np.zeros_like(bias)
    low = int(np.minimum(lowest, lowest + start).min(initial=0))
    high = int(np.maximum(highest, highest + start).max(initial=0))
    return max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0) + 1


def fc_sums(job: Sum, x: Codes) -> I64:
    """Sums [1, outputs] over `x` as one row."""
    row = x.reshape(-1).astype(job.weight.dtype)
    return np.asarray(job.weight @ row).astype(np.int64).reshape(1, -1) + job.bias


def conv_sums(job: Sum, x: Codes) -> Iterator[tuple[slice, I64]]:
    """Sums of a convolution over `x` [1, C, H, W], some output rows at a time.

    Yields:
        The rows, and their sums [1, outputs, rows, columns].
    """
    attributes = job.layer.attributes
    padded = _padded(x, job)
    windows = _windows(padded, attributes)
    _, height, width = windows.shape[:3]
    unfolded = windows.shape[0] * windows.shape[3] * windows.shape[4] * width
    step = max(1, _CHUNK // max(unfolded, job.weight.shape[0] * width))
    make = _depthwise if job.layer.op == "depthwise" else _grouped
    for first in range(0, height, step):
        rows = slice(first, min(first + step, height))
        sums = make(job.weight, windows[:, rows], int(attributes["groups"]))
        shape = (1, job.weight.shape[0], rows.stop - rows.start, width)
        yield rows, sums.astype(np.int64).reshape(shape) + job.bias.reshape(1, -1, 1, 1)


def _padded(x: Codes, job: Sum) -> npt.NDArray[Any]:
    """`x` [1, C, H, W] with its padding, in the type of the weight, as [C, H, W]."""
    attributes = job.layer.attributes
    top, left, bottom, right = attributes["pads"]
    channels, height, width = x.shape[1:]
    shape = (channels, height + top + bottom, width + left + right)
    padded = np.full(shape, attributes["pad_value"], dtype=job.weight.dtype)
    padded[:, top : top + height, left : left + width] = x[0]
    return padded


def _windows(padded: npt.NDArray[Any], attributes: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - JSON
    """A view [C, rows, columns, kernel rows, kernel columns] of what each output reads."""
    (kh, kw), (sh, sw) = attributes["kernel"], attributes["strides"]
    dh, dw = attributes.get("dilations", (1, 1))
    spans = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
    return sliding_window_view(padded, spans, axis=(1, 2))[:, ::sh, ::sw, ::dh, ::dw]


def _grouped(weight: npt.NDArray[Any], windows: npt.NDArray[Any], groups: int) -> npt.NDArray[Any]:
    """A matrix product per group; [outputs, rows * columns]."""
    inputs, outputs = weight.shape[1], weight.shape[0] // groups
    results = []
    for group in range(groups):
        part = windows[group * inputs : (group + 1) * inputs]
        # Copies unless the kernel is 1x1 and nothing is skipped.
        matrix = part.transpose(0, 3, 4, 1, 2).reshape(weight[0].size, -1)
        filters = weight[group * outputs : (group + 1) * outputs].reshape(outputs, -1)
        results.append(filters @ matrix)
    return results[0] if groups == 1 else np.concatenate(results)


def _depthwise(
    weight: npt.NDArray[Any], windows: npt.NDArray[Any], groups: int
) -> npt.NDArray[Any]:
    """One product and addition per place of the kernel; [groups, filters, rows, columns]."""
    channels, rows, columns, height, width = windows.shape
    filters = weight.reshape(groups, -1, height, width)
    total = np.zeros((channels, filters.shape[1], rows, columns), weight.dtype)
    for i in range(height):
        for j in range(width):
            total += filters[:, :, i, j, None, None] * windows[:, None, :, :, i, j]
    return total

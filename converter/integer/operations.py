"""What every operator but convolutions and fully connected layers computes, to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from qconvert.integer.rounding import rescale, shift_right

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from qconvert.integer.program import Codes, Layer, Op, Program, Tensor
    from qconvert.integer.rounding import I64

__all__ = ["OPERATIONS", "Step", "average", "clamped", "pool_sums", "requantized"]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One layer about to run.

    Attributes:
        program: What it belongs to.
        layer: The layer.
        inputs: The codes it reads.
    """

    program: Program
    layer: Layer
    inputs: Sequence[Codes]

    @property
    def output(self) -> Tensor:
        """The tensor it writes."""
        return self.program.tensors[self.layer.outputs[0]]

    @property
    def source(self) -> Tensor:
        """The tensor it reads first."""
        return self.program.tensors[self.layer.inputs[0]]

    def values(self, name: str) -> I64:
        """The codes of a parameter, as int64."""
        tensor = self.program.parameter(self.layer, name)
        assert tensor is not None, (self.layer.id, name)
        assert tensor.values is not None
        return tensor.values.astype(np.int64)


def clamped(codes: npt.NDArray[np.int64], step: Step) -> Codes:
    """Codes within the clamp of the layer, in the type of its output."""
    assert step.layer.clamp is not None
    return np.clip(codes, *step.layer.clamp).astype(step.output.dtype)


def requantized(sums: I64, step: Step, axis: int | None = None) -> Codes:
    """clamp(z + RS(sums * M, s)); multiplier and shift run along `axis`, where they are several.

    Sums leave as they are where the layer has no multiplier.
    """
    if "multiplier" not in step.layer.parameters:
        return clamped(sums, step)
    shape = [1] * sums.ndim
    if axis is not None:
        shape[axis] = -1
    multiplier, shift = (step.values(name).reshape(shape) for name in ("multiplier", "shift"))
    rounding = step.program.numeric.rounding
    bits = min(step.layer.accumulator_bits_needed, step.layer.accumulator_bits)
    result = rescale(sums, multiplier, shift, rounding, bits=bits)
    return clamped(result + step.output.zero_point, step)


def _centred(step: Step, index: int) -> I64:
    """An input without its zero point."""
    tensor = step.program.tensors[step.layer.inputs[index]]
    return step.inputs[index].astype(np.int64) - tensor.zero_point


def _finished(products: I64, step: Step) -> Codes:
    """Products that are multiplied already: shift, zero point, clamp."""
    shift = step.values("shift").reshape(-1)[0]
    result = shift_right(products, shift, step.program.numeric.rounding)
    return clamped(result + step.output.zero_point, step)


def _add(step: Step) -> Codes:
    multipliers = step.values("multiplier").reshape(-1)
    signs = step.layer.attributes["signs"]
    total = sum(_centred(step, i) * signs[i] * factor for i, factor in enumerate(multipliers))
    return _finished(np.asarray(total), step)


def _mul(step: Step) -> Codes:
    return requantized(np.asarray(_centred(step, 0) * _centred(step, 1)), step)


def _requantize(step: Step) -> Codes:
    return requantized(_centred(step, 0), step)


def _clamp(step: Step) -> Codes:
    return clamped(step.inputs[0].astype(np.int64), step)


def _lut(step: Step) -> Codes:
    table = step.values("lut")
    index = step.inputs[0].astype(np.int64) - int(step.layer.attributes["base"])
    if table.ndim == 1:
        return clamped(table[index], step)
    shape = [1] * index.ndim
    shape[1] = -1
    return clamped(table[np.arange(table.shape[0]).reshape(shape), index], step)


def _concat(step: Step) -> Codes:
    parts: list[Codes] = list(step.inputs)
    if "multiplier" in step.layer.parameters:
        multipliers, shifts = step.values("multiplier"), step.values("shift")
        rounding, zero = step.program.numeric.rounding, step.output.zero_point
        parts = [
            rescale(_centred(step, i), multipliers[i], shifts[i], rounding) + zero
            for i in range(len(parts))
        ]
    joined = np.concatenate(parts, axis=int(step.layer.attributes["axis"]))
    return clamped(joined.astype(np.int64), step)


def _framed(step: Step, fill: int) -> npt.NDArray[np.int64]:
    """Windows [C, rows, columns, kernel rows, kernel columns] over the padded input."""
    attributes = step.layer.attributes
    top, left, bottom, right = attributes["pads"]
    (kh, kw), (sh, sw) = attributes["kernel"], attributes["strides"]
    frame = ((0, 0), (top, bottom), (left, right))
    padded = np.pad(step.inputs[0][0].astype(np.int64), frame, constant_values=fill)
    return sliding_window_view(padded, (kh, kw), axis=(1, 2))[:, ::sh, ::sw]


def _max_pool(step: Step) -> Codes:
    windows = _framed(step, step.source.low)
    result = windows[..., 0, 0].copy()
    for i in range(windows.shape[3]):
        for j in range(windows.shape[4]):
            np.maximum(result, windows[..., i, j], out=result)
    return clamped(result[None], step)


def pool_sums(step: Step) -> I64:
    """Sums of an average pool, without the zero point; [1, C, rows, columns]."""
    zero = step.source.zero_point
    windows = _framed(step, zero)
    # Tap by tap: a reduction over two strided axes is slow.
    total = np.zeros(windows.shape[:3], np.int64)
    for i in range(windows.shape[3]):
        for j in range(windows.shape[4]):
            total += windows[..., i, j]
    return np.asarray(total - windows.shape[3] * windows.shape[4] * zero)[None]


def _counts(step: Step) -> npt.NDArray[np.int64]:
    """How many input elements each window covers; [rows, columns]."""
    attributes = step.layer.attributes
    top, left, bottom, right = attributes["pads"]
    (kh, kw), (sh, sw) = attributes["kernel"], attributes["strides"]
    inside = np.pad(np.ones(step.inputs[0].shape[2:], np.int64), ((top, bottom), (left, right)))
    windows = sliding_window_view(inside, (kh, kw))[::sh, ::sw]
    return np.asarray(windows.sum(axis=(2, 3)))


def average(sums: I64, step: Step) -> Codes:
    """The means of the sums of an average pool; multipliers are by count where counts differ."""
    if step.layer.attributes["divisor"] == "window":
        return requantized(sums, step)
    index = _counts(step) - 1
    multiplier, shift = step.values("multiplier")[index], step.values("shift")[index]
    result = rescale(sums, multiplier, shift, step.program.numeric.rounding)
    return clamped(result + step.output.zero_point, step)


def _avg_pool(step: Step) -> Codes:
    return average(pool_sums(step), step)


def _copied(codes: Codes, step: Step) -> Codes:
    """Codes that were moved, within the clamp where there is one."""
    if step.layer.clamp is None:
        return np.ascontiguousarray(codes)
    return np.clip(codes, *step.layer.clamp).astype(step.output.dtype)


def _resize(step: Step) -> Codes:
    attributes, x = step.layer.attributes, step.inputs[0]
    if "scales" in attributes:
        rows, columns = attributes["scales"]
        return _copied(x.repeat(rows, axis=2).repeat(columns, axis=3), step)
    return _copied(x[:, :, attributes["rows"]][:, :, :, attributes["columns"]], step)


def _pad(step: Step) -> Codes:
    attributes = step.layer.attributes
    pads = [tuple(pair) for pair in attributes["pads"]]
    return _copied(np.pad(step.inputs[0], pads, constant_values=attributes["pad_value"]), step)


def _reshape(step: Step) -> Codes:
    return _copied(step.inputs[0].reshape(step.output.shape), step)


def _transpose(step: Step) -> Codes:
    return _copied(step.inputs[0].transpose(step.layer.attributes["order"]), step)


def _slice(step: Step) -> Codes:
    axis, start, stride = (int(step.layer.attributes[key]) for key in ("axis", "start", "step"))
    index = start + stride * np.arange(step.output.shape[axis])
    return _copied(np.take(step.inputs[0], index, axis=axis), step)


def _gather(step: Step) -> Codes:
    attributes = step.layer.attributes
    picked = np.take(step.inputs[0], np.asarray(attributes["indices"]), axis=attributes["axis"])
    return _copied(picked, step)


OPERATIONS: Final[Mapping[Op, Callable[[Step], Codes]]] = {
    "add": _add,
    "mul": _mul,
    "avg_pool": _avg_pool,
    "max_pool": _max_pool,
    "concat": _concat,
    "requantize": _requantize,
    "clamp": _clamp,
    "lut": _lut,
    "resize": _resize,
    "pad": _pad,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "gather": _gather,
}

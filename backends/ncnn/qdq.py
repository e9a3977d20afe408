"""Reads quantization out of a graph: what the Q/DQ nodes say about an input and a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from qconvert.graph import constant

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Activation", "Codes", "activation_of", "codes_of", "fold"]

_RANGES: Final = {
    "INT4": (-8, 7),
    "UINT4": (0, 15),
    "INT8": (-128, 127),
    "UINT8": (0, 255),
    "INT16": (-32768, 32767),
    "UINT16": (0, 65535),
}


@dataclass(frozen=True, slots=True)
class Activation:
    """A tensor that is quantized and dequantized again.

    Attributes:
        source: The float value in front.
        scale: real = scale * (code - zero_point).
        zero_point: Code of 0.
        low: Smallest code.
        high: Largest code.
    """

    source: ir.Value
    scale: np.float32
    zero_point: int
    low: int
    high: int

    @property
    def in_ncnn(self) -> bool:
        """Whether ncnn's integer layers can hold these codes: int8 without a zero point."""
        return self.zero_point == 0 and self.low >= -128 and self.high <= 127


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """A weight that is stored as integers.

    Attributes:
        codes: int8, the weight's shape.
        scales: float32; one, or one for each index of `axis`.
        axis: Channel axis; None for one scale.
    """

    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    axis: int | None

    @property
    def bits(self) -> int:
        """The narrowest symmetric width that holds every code, at least 2."""
        largest = int(np.abs(self.codes.astype(np.int16)).max(initial=1))
        return max(2, int(largest).bit_length() + 1)


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes `value`, when it is an `op_type`."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and not node.domain else None


def _scalar(value: ir.Value | None, default: int | None = None) -> np.generic | int | None:
    """The one number behind `value`."""
    if value is None:
        return default
    array = constant(value)
    return array.reshape(-1)[0] if array is not None and array.size == 1 else None


def activation_of(value: ir.Value | None) -> Activation | None:
    """The quantization of `value` when it is QuantizeLinear [→ Clip] → DequantizeLinear."""
    dequantize = _producer(value, "DequantizeLinear")
    if dequantize is None:
        return None
    codes = dequantize.inputs[0]
    bounds: tuple[int, int] | None = None
    clip = _producer(codes, "Clip")
    if clip is not None:
        low, high = (
            _scalar(clip.inputs[i] if len(clip.inputs) > i else None, default)
            for i, default in ((1, -(2**31)), (2, 2**31))
        )
        if low is None or high is None:
            return None
        bounds = int(low), int(high)
        codes = clip.inputs[0]
    quantize = _producer(codes, "QuantizeLinear")
    if quantize is None or quantize.inputs[0] is None:
        return None
    if not _same_parameters(quantize, dequantize):
        return None
    scale = _scalar(quantize.inputs[1])
    zero_point = _scalar(quantize.inputs[2] if len(quantize.inputs) > 2 else None, 0)
    dtype = quantize.outputs[0].dtype
    name = dtype.name if dtype is not None else "UINT8"
    if scale is None or zero_point is None or name not in _RANGES:
        return None
    low_code, high_code = _RANGES[name]
    if bounds is not None:
        low_code, high_code = max(low_code, bounds[0]), min(high_code, bounds[1])
    return Activation(quantize.inputs[0], np.float32(scale), int(zero_point), low_code, high_code)


def _same_parameters(quantize: ir.Node, dequantize: ir.Node) -> bool:
    """Whether both nodes use one scale and zero point."""
    for index in (1, 2):
        pair = [
            node.inputs[index] if len(node.inputs) > index else None
            for node in (quantize, dequantize)
        ]
        first, second = (constant(value) if value is not None else None for value in pair)
        if pair[0] is pair[1]:
            continue
        if not np.array_equal(
            np.zeros(1) if first is None else first.reshape(-1),
            np.zeros(1) if second is None else second.reshape(-1),
        ):
            return False
    return True


def codes_of(value: ir.Value | None) -> Codes | None:
    """The integer codes behind a weight; None when it is not stored so, or not as int8.

    A constant that passes through QuantizeLinear first (as PyTorch exports it) is rounded here.
    """
    dequantize = _producer(value, "DequantizeLinear")
    if dequantize is None or dequantize.attributes.get_int("block_size", 0) != 0:
        return None
    stored = constant(dequantize.inputs[0])
    scales = constant(dequantize.inputs[1])
    if stored is None:
        stored = fold(dequantize.inputs[0])
    zero_points = dequantize.inputs[2] if len(dequantize.inputs) > 2 else None
    if stored is None or scales is None or stored.dtype.name not in {"int8", "int4", "int2"}:
        return None
    if zero_points is not None:
        zeros = constant(zero_points)
        if zeros is None or zeros.astype(np.int32).any():
            return None
    per_channel = scales.ndim == 1 and scales.size > 1
    axis = dequantize.attributes.get_int("axis", 1) % max(stored.ndim, 1)
    if scales.ndim == 1 and scales.size == stored.shape[axis]:
        per_channel = True
    return Codes(
        stored.astype(np.int8),
        scales.astype(np.float32).reshape(-1),
        axis if per_channel else None,
    )


def fold(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The array behind `value`, looking through Q/DQ nodes on constants; else None."""
    known = constant(value)
    if known is not None or value is None:
        return known
    node = value.producer()
    if node is None or node.domain or node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        return None
    data = fold(node.inputs[0])
    scale = constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if data is None or scale is None or node.attributes.get_int("block_size", 0) != 0:
        return None
    shape = [1] * data.ndim
    if scale.ndim == 1 and data.ndim:
        shape[node.attributes.get_int("axis", 1) % data.ndim] = -1
    step = scale.astype(np.float32).reshape(shape)
    offset = (
        np.zeros(1, np.float32)
        if zero is None
        else zero.astype(np.float32).reshape(shape if zero.ndim else [])
    )
    if node.op_type == "DequantizeLinear":
        return np.asarray((data.astype(np.float32) - offset) * step, dtype=np.float32)
    dtype = value.dtype.name if value.dtype is not None else "UINT8"
    if dtype not in _RANGES:
        return None
    codes = np.clip(np.rint(data.astype(np.float32) / step) + offset, *_RANGES[dtype])
    kind = np.int32 if "16" in dtype else np.int16 if dtype[0] == "U" else np.int8
    return np.asarray(codes, dtype=kind)

"""Reads quantization back from Q/DQ nodes: the only place it is written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qconvert.graph import constant

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

    from qconvert.quant import F32

__all__ = ["COMPUTE", "QuantizedTensor", "dequantized", "quantized_inputs", "width"]

COMPUTE: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that are layers: they have weights and run on integers."""


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """What a DequantizeLinear says about the tensor behind it.

    Attributes:
        node: The DequantizeLinear.
        scale: float32, [] or [channels].
        zero_point: Of the codes' type, the shape of `scale`; None means 0.
        axis: Channel axis of per-channel scales; None for one scale.
        codes: The codes, where they are constant.
    """

    node: ir.Node
    scale: F32
    zero_point: npt.NDArray[Any] | None
    axis: int | None
    codes: npt.NDArray[Any] | None


def dequantized(value: ir.Value | None) -> QuantizedTensor | None:
    """The quantization of a value that a DequantizeLinear makes; None when it is float."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.domain != "":
        return None
    scale = constant(node.inputs[1])
    if scale is None:
        return None
    zero_point = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    axis = None if scale.size == 1 else node.attributes.get_int("axis", 1)
    codes = constant(node.inputs[0])
    return QuantizedTensor(node, np.asarray(scale, np.float32), zero_point, axis, codes)


def quantized_inputs(node: ir.Node) -> tuple[QuantizedTensor, QuantizedTensor] | None:
    """Activation and weight of a layer; None unless both are quantized, the weight constant."""
    if node.op_type not in COMPUTE or node.domain != "" or len(node.inputs) < 2:
        return None
    first, second = dequantized(node.inputs[0]), dequantized(node.inputs[1])
    if first is None or second is None or second.codes is None:
        return None
    return first, second


def width(tensor: QuantizedTensor) -> int:
    """Bits of a tensor's codes.

    Of constant codes: the smallest symmetric width that holds them, within their type. Of an
    activation: from the Clip between QuantizeLinear and DequantizeLinear, else its type.
    """
    source = tensor.node.inputs[0]
    assert source is not None
    assert source.dtype is not None
    storage = int(source.dtype.bitwidth)
    if tensor.codes is not None:
        offset = 0 if tensor.zero_point is None else int(np.max(np.abs(tensor.zero_point)))
        if offset:
            return storage
        codes = tensor.codes.astype(np.int32)
        top = max(int(np.max(codes, initial=1)), -int(np.min(codes, initial=-1)))
        return min(max(int(top).bit_length() + 1, 2), storage)
    clip = source.producer()
    if clip is None or clip.op_type != "Clip" or len(clip.inputs) < 3:
        return storage
    low, high = constant(clip.inputs[1]), constant(clip.inputs[2])
    if low is None or high is None:
        return storage
    span = int(high.reshape(-1)[0]) - int(low.reshape(-1)[0])
    return min(max((span + 1).bit_length() if span & (span + 1) else span.bit_length(), 2), storage)

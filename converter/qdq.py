"""Read quantization out of a graph: what its Q/DQ nodes say about activations and weights.

    x → QuantizeLinear → [Clip] → DequantizeLinear → reader     an activation: a `Pair`
    codes → DequantizeLinear → reader                           a weight: `Codes`
    codes → qconvert.DequantizeLog2 → reader                    a weight whose codes are exponents

These patterns are all that a quantized model consists of once the passes have seen it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from qconvert.graph import DOMAIN, constant
from qconvert.quant import F32, QParams, code_range, dequantize

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "DEQUANTIZE_LOG2",
    "Codes",
    "Pair",
    "code_bits",
    "codes_of",
    "folded",
    "pair_of",
    "quantizer_params",
]

DEQUANTIZE_LOG2: Final = "DequantizeLog2"
"""The model-local function that makes a weight of exponents (`qconvert.functions.log2`)."""

_STORAGE_BITS: Final = {
    "INT4": 4, "UINT4": 4, "INT8": 8, "UINT8": 8, "INT16": 16, "UINT16": 16,
}  # fmt: skip
_SMALL: Final = {"int2": np.int8, "int4": np.int8, "uint2": np.uint8, "uint4": np.uint8}
"""Types that numpy only borrows → the smallest of its own that holds them."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """An activation that is quantized and dequantized again.

    Attributes:
        source: The float value before quantization.
        output: The float value after it, on the grid of the codes.
        params: Scale, zero point and width.
        nodes: QuantizeLinear, Clip if there is one, DequantizeLinear.
    """

    source: ir.Value
    output: ir.Value
    params: QParams
    nodes: tuple[ir.Node, ...]

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest code that can occur: without a Clip, the storage's."""
        if len(self.nodes) > 2 or self.params.bits not in (8, 16):
            return self.params.low, self.params.high
        return code_range(self.params.bits, signed=self.params.signed, narrow=False)


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """A weight that is stored as integers.

    Attributes:
        codes: The codes, in their storage type.
        params: Scale and zero point; `bits` is the width the codes use.
        node: The DequantizeLinear, or the call of DequantizeLog2.
    """

    codes: npt.NDArray[Any]
    params: QParams
    node: ir.Node

    def real(self) -> F32:
        """The weight itself."""
        return dequantize(self.codes, self.params)


def code_bits(codes: npt.NDArray[Any], *, symmetric: bool = True) -> int:
    """The narrowest width, 2 to 16, whose range holds all `codes`."""
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    if symmetric:
        return max(2, max(-low, high).bit_length() + 1)
    return max(2, high.bit_length() if low >= 0 else max(high, -low - 1).bit_length() + 1)


def _made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node behind `value` when it is a standard `op_type`."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and not node.domain else None


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _scale_and_zero(node: ir.Node) -> tuple[F32, npt.NDArray[np.int32]] | None:
    """The constant scale and zero point of a Q or DQ node; None when either is computed."""
    scale = constant(_input(node, 1))
    if scale is None or scale.ndim > 1 or node.attributes.get_int("block_size", 0) != 0:
        return None
    real = scale.astype(np.float32)
    if not (np.isfinite(real).all() and (real > 0).all()):
        return None
    given = _input(node, 2)
    if given is None:
        return real, np.zeros(real.shape, np.int32)
    zero = constant(given)
    if zero is None or zero.size != real.size:
        return None
    return real, np.asarray(zero, dtype=np.int32).reshape(real.shape)


def quantizer_params(node: ir.Node) -> QParams | None:
    """Parameters of a QuantizeLinear of a whole tensor, without a Clip; None when not constant."""
    found = _scale_and_zero(node)
    dtype = node.outputs[0].dtype
    if found is None or found[0].size != 1 or dtype is None or dtype.name not in _STORAGE_BITS:
        return None
    scale, zero = found[0].reshape(()), found[1].reshape(())
    signed = not dtype.name.startswith("U")
    symmetric = signed and not zero.any()
    return QParams(scale, zero, _STORAGE_BITS[dtype.name], signed, symmetric)


def pair_of(value: ir.Value | None) -> Pair | None:
    """The pair whose output `value` is; None when there is none, or its numbers are computed."""
    last = _made_by(value, "DequantizeLinear")
    if last is None:
        return None
    clip = _made_by(last.inputs[0], "Clip")
    first = _made_by(last.inputs[0] if clip is None else clip.inputs[0], "QuantizeLinear")
    if first is None or first.inputs[0] is None or constant(first.inputs[0]) is not None:
        return None
    params, back = quantizer_params(first), _scale_and_zero(last)
    if params is None or back is None or back[0].size != 1:
        return None
    if back[0].reshape(()) != params.scale or back[1].reshape(()) != params.zero_point:
        return None
    if clip is not None:
        narrowed = _clipped(clip, params)
        if narrowed is None:
            return None
        params = narrowed
    nodes = (first, last) if clip is None else (first, clip, last)
    return Pair(first.inputs[0], last.outputs[0], params, nodes)


def _clipped(clip: ir.Node, params: QParams) -> QParams | None:
    """`params` with the width that the bounds of a Clip on codes leave."""
    low, high = constant(_input(clip, 1)), constant(_input(clip, 2))
    if low is None or high is None:
        return None
    bounds = np.asarray([low.reshape(())[()], high.reshape(())[()]], dtype=np.int64)
    if not params.signed:
        bits = code_bits(bounds, symmetric=False)
    else:
        bits = code_bits(bounds, symmetric=params.symmetric)
    narrowed = QParams(params.scale, params.zero_point, bits, params.signed, params.symmetric)
    return narrowed if (narrowed.low, narrowed.high) == tuple(bounds) else None


def codes_of(value: ir.Value | None) -> Codes | None:
    """The codes that `value` is dequantized from; None when it is not a stored weight.

    A constant that passes through QuantizeLinear first (as PyTorch exports it) is rounded here.
    """
    exponents = _exponents_of(value)
    if exponents is not None:
        return exponents
    node = _made_by(value, "DequantizeLinear")
    codes = folded(node.inputs[0]) if node is not None else None
    found = _scale_and_zero(node) if node is not None else None
    if node is None or codes is None or found is None:
        return None
    if codes.dtype.name in _SMALL:
        codes = codes.astype(_SMALL[codes.dtype.name])
    if codes.dtype.kind not in "iu":
        return None
    scale, zero = found
    if codes.dtype.itemsize > 2:
        return None
    axis = node.attributes.get_int("axis", 1)
    inside = -codes.ndim <= axis < codes.ndim
    # A vector of one scale is how some exporters write one scale for the tensor.
    per_channel = scale.ndim == 1 and inside and (scale.size > 1 or codes.shape[axis] == 1)
    if scale.size != (codes.shape[axis] if per_channel else 1):
        return None
    shape = scale.shape if per_channel else ()
    signed = codes.dtype.kind == "i"
    symmetric = (
        signed and not zero.any() and int(codes.min(initial=0)) > np.iinfo(codes.dtype.name).min
    )
    params = QParams(
        scale.reshape(shape),
        zero.reshape(shape),
        code_bits(codes, symmetric=symmetric),
        signed,
        symmetric,
        axis % codes.ndim if per_channel else None,
    )
    return Codes(codes, params, node)


def folded(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The array behind `value`, looking through Q/DQ nodes on constants; else None."""
    known = constant(value)
    if known is not None or value is None:
        return known
    node = value.producer()
    if node is None or node.domain or node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        return None
    data = folded(node.inputs[0])
    scale, zero = constant(node.inputs[1]), constant(_input(node, 2))
    if data is None or scale is None or node.attributes.get_int("block_size", 0) != 0:
        return None
    shape = [1] * data.ndim
    if scale.ndim == 1 and data.ndim:
        shape[node.attributes.get_int("axis", 1) % data.ndim] = -1
    step = scale.astype(np.float32).reshape(shape)
    offset = np.zeros(1, np.float32)
    if zero is not None:
        offset = zero.astype(np.float32).reshape(shape if zero.ndim else [])
    if node.op_type == "DequantizeLinear":
        return np.asarray((data.astype(np.float32) - offset) * step, dtype=np.float32)
    return _rounded(np.rint(data.astype(np.float32) / step) + offset, value)


def _rounded(codes: F32, value: ir.Value) -> npt.NDArray[np.generic] | None:
    """`codes` within the range of the type of `value`; None for a type that holds no codes."""
    dtype = value.dtype.name if value.dtype is not None else "UINT8"
    if dtype not in _STORAGE_BITS:
        return None
    signed = dtype.startswith("I")
    low, high = code_range(_STORAGE_BITS[dtype], signed=signed, narrow=False)
    storage = f"{'' if signed else 'u'}int{16 if '16' in dtype else 8}"
    return np.clip(codes, low, high).astype(storage)


def _exponents_of(value: ir.Value | None) -> Codes | None:
    """The same for a weight whose codes are exponents."""
    node = value.producer() if value is not None else None
    if node is None or (node.domain, node.op_type) != (DOMAIN, DEQUANTIZE_LOG2):
        return None
    codes, scale = constant(node.inputs[0]), constant(node.inputs[1])
    if codes is None or scale is None:
        return None
    axis = node.attributes.get_int("axis", 0) if scale.ndim else None
    real = scale.astype(np.float32)
    zero = np.zeros(real.shape, np.int32)
    bits = node.attributes.get_int("bits", 4)
    return Codes(codes, QParams(real, zero, bits=bits, axis=axis, log2=True), node)

"""Layers stored as int8 → Q/DQ nodes.

ncnn's scale is the reciprocal of ONNX's: code = round(value * scale), within -127..127, zero
point 0. A layer of this kind reads

    input → QuantizeLinear → DequantizeLinear        codes → DequantizeLinear

which has the arithmetic of src/layer/convolution.cpp (forward_int8) up to float rounding: the
integer sum times 1 / (input scale * weight scale), then bias and activation.

A layer above 100 hands int8 codes to the next one (*requantize*). Its scale is normally that of
the reader, which then quantizes just so; only where the two differ, a reader gets the codes
taken at one scale and read at the other, as in ncnn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.frontends.ncnn.builder import Builder
    from qconvert.quant import F32

__all__ = ["input_twin", "note_top_scale", "weight_twin"]

_LIMIT = 127


def _scale(b: Builder, name: str) -> float:
    """The one positive number in weight `name`.

    Raises:
        ModelFormatError: If it is not positive.
    """
    value = float(b.weight(name)[0])
    limit = 1 / float(np.finfo(np.float32).max)  # the reciprocal has to be finite as well
    if value <= limit:
        raise b.bad(f"the {name} of '{b.layer.name}' is {value:g}", "a scale is positive")
    return value


def input_twin(b: Builder, x: ir.Value) -> ir.Value:
    """`x` as the layer's integers see it: quantized at its bottom_scale and back."""
    scale = _scale(b, "bottom_scale")
    key = str(x.name), scale
    if key not in b.quantized:
        b.quantized[key] = _twin(b, x, scale)
    return b.quantized[key]


def _twin(b: Builder, x: ir.Value, scale: float) -> ir.Value:
    """Quantize `x` at `scale`, or at the scale its own layer gave it, and dequantize."""
    taken = b.top_scales.get(str(x.name), scale)
    if taken != scale:
        b.report.warn(
            f"'{b.layer.name}' reads '{x.name}' at scale {scale:g}, and it was rounded at "
            f"{taken:g}: ncnn takes the codes as they are, and so does the model read here"
        )
    dims = b.dims(x)
    down = [_reciprocal(b, taken, f"{x.name}/scale"), _zero(b, f"{x.name}/zero_point")]
    up = down if taken == scale else [_reciprocal(b, scale, f"{x.name}/read_scale"), down[1]]
    codes = b.emit("QuantizeLinear", [x, *down], dims, part="quantize", dtype=ir.DataType.INT8)
    codes.name = b.unique(f"{x.name}/quantized")
    twin = b.emit("DequantizeLinear", [codes, *up], dims, part="dequantize")
    twin.name = b.unique(f"{x.name}/dequantized")
    return twin


def _reciprocal(b: Builder, scale: float, name: str) -> ir.Value:
    """ONNX's scale of an ncnn scale."""
    return b.named(np.float32(1) / np.asarray(scale, dtype=np.float32), name)


def _zero(b: Builder, name: str) -> ir.Value:
    """The zero point."""
    return b.named(np.zeros((), dtype=np.int8), name)


def weight_twin(b: Builder, shape: tuple[int, ...], scales: F32, *, axis: int) -> ir.Value:
    """The layer's weight as codes behind a DequantizeLinear.

    Args:
        b: The workbench.
        shape: Of the weight.
        scales: ncnn's, [shape[axis]], >= 0. A channel of scale 0 counts as zeros.
        axis: Output-channel axis.

    Raises:
        ModelFormatError: If a scale is negative or too small to divide by.
    """
    with np.errstate(divide="ignore", over="ignore"):
        real = np.where(scales == 0, np.float32(1), np.float32(1) / scales)
    if (scales < 0).any() or not (np.isfinite(real) & (real > 0)).all():
        raise b.bad(f"a weight scale of '{b.layer.name}' is negative, or too small or large")
    along = [1] * len(shape)
    along[axis] = -1
    codes = _codes(b, shape, scales.reshape(along))
    name = f"{b.layer.name}.weight"
    stored = b.named(codes, f"{name}/codes")
    scale = b.named(real.astype(np.float32), f"{name}/scale")
    zero = b.named(np.zeros(scales.shape, dtype=np.int8), f"{name}/zero_point")
    twin = b.emit(
        "DequantizeLinear", [stored, scale, zero], shape[1:], {"axis": axis}, part="weight"
    )
    twin.shape = ir.Shape(shape)
    twin.name = b.unique(f"{name}/dequantized")
    return twin


def _codes(b: Builder, shape: tuple[int, ...], scales: F32) -> npt.NDArray[np.int8]:
    """Codes as stored, or rounded from a float weight as ncnn does when it loads one."""
    stored = b.weights["weight"]
    if stored.dtype == np.int8:
        codes = stored.reshape(shape).astype(np.int8, copy=False)
    else:
        scaled = b.weight("weight").reshape(shape) * scales
        rounded = np.copysign(np.floor(np.abs(scaled) + np.float32(0.5)), scaled)
        codes = np.clip(rounded, -_LIMIT, _LIMIT).astype(np.int8)
    return np.where(scales == 0, np.int8(0), codes)


def note_top_scale(b: Builder, y: ir.Value) -> None:
    """Remember at which scale the layer rounds its output `y`, if it does."""
    if "top_scale" in b.weights:
        b.top_scales[str(y.name)] = _scale(b, "top_scale")

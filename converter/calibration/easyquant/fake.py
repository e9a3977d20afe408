"""Quantize and dequantize in one step, fast: what the search does some hundred times a layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qconvert.quant import QParams, asymmetric, dequantize, log2, quantize

if TYPE_CHECKING:
    from qconvert.quant import F32

__all__ = ["fake", "resized", "rounded", "rounded_log2"]


def fake(x: F32, params: QParams) -> F32:
    """`x` as codes of one scale can say it; float32 arithmetic as in onnxruntime."""
    scale, zero = np.float32(params.scale), np.float32(params.zero_point)
    codes = np.divide(x, scale)
    np.rint(codes, out=codes)
    np.clip(codes, np.float32(params.low - zero), np.float32(params.high - zero), out=codes)
    return np.multiply(codes, scale, out=codes)


def rounded(weight: F32, scale: F32, top: int) -> F32:
    """Symmetric codes of `weight` times `scale` (broadcast), as float32."""
    codes = np.divide(weight, scale)
    np.rint(codes, out=codes)
    np.clip(codes, -top, top, out=codes)
    return np.multiply(codes, scale, out=codes)


def rounded_log2(weight: F32, scale: F32, bits: int) -> F32:
    """`weight` [G, O/G, K] as exponents of a scale per row, [G, O/G, 1], can say it."""
    params = log2(scale.ravel(), bits=bits, axis=0)
    rows = weight.reshape(params.scale.size, -1)
    return dequantize(quantize(rows, params), params).reshape(weight.shape)


def resized(params: QParams, low: float, high: float) -> QParams:
    """One-scale parameters whose ends are moved by factors.

    Args:
        params: Parameters to start from.
        low: Factor of the smallest real value; symmetric parameters ignore it.
        high: Factor of the largest real value; > 0.
    """
    if params.symmetric:
        tiny = np.finfo(np.float32).tiny
        scale = np.maximum(np.float64(params.scale) * high, tiny).astype(np.float32)
        return replace(params, scale=np.asarray(scale))
    scale = float(params.scale)
    ends = [scale * (code - int(params.zero_point)) for code in (params.low, params.high)]
    return asymmetric(
        min(ends[0], 0.0) * low, max(ends[1], 0.0) * high, bits=params.bits, signed=params.signed
    )

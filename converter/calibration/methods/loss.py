"""Squared error of quantization, on histograms and on rows of weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.quant import code_range, dequantize, quantize

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.calibration.observers import Histogram
    from qconvert.quant import F32, QParams

    F64 = npt.NDArray[np.float64]

__all__ = ["Points", "row_loss", "row_magnitudes", "rows_error"]


_BLOCK: Final = 1 << 20  # values that are quantized at a time: their float64 copies are large


@dataclass(frozen=True, slots=True)
class Points:
    """A distribution as weighted values.

    Attributes:
        values: float64 [n], the first one 0.
        weights: float64 [n], sum 1.
        width: Values stand for an interval of this width around them; 0: they are exact.
    """

    values: F64
    weights: F64
    width: float = 0.0

    @classmethod
    def of(cls, histogram: Histogram) -> Points:
        """The bins that hold something, and 0."""
        full = np.flatnonzero(histogram.counts)
        values = np.concatenate([[0.0], histogram.centres[full]])
        counts = np.concatenate([[histogram.zeros], histogram.counts[full]]).astype(np.float64)
        return cls(values, counts / max(counts.sum(), 1.0), histogram.width)

    def nonzero(self) -> Points:
        """The same without the values that are exactly 0; `self` where there are no others."""
        others = self.weights.copy()
        others[0] = 0.0
        total = others.sum()
        return Points(self.values, others / total, self.width) if total > 0 else self

    def moment(self, order: int, *, centre: float = 0.0) -> float:
        """Mean of |value - centre| to the power `order`."""
        return float(self.weights @ np.abs(self.values - centre) ** order)

    def loss(self, params: QParams) -> float:
        """Mean squared error when quantized with one scale.

        Where codes are finer than the intervals, values spread over several codes and the error
        is that of uniform rounding.
        """
        scale = float(params.scale)
        codes = np.clip(np.rint(self.values / scale) + params.zero_point, params.low, params.high)
        back = scale * (codes - params.zero_point)
        error = (self.values - back) ** 2
        if scale < 4.0 * self.width:
            inside = (codes > params.low) & (codes < params.high)
            error[inside] = scale * scale / 12.0
        return float(self.weights @ error)


def row_magnitudes(rows: F32) -> F64:
    """Largest magnitude of each row, float64 [rows], >= 0."""
    return np.asarray(np.abs(rows).max(axis=1, initial=0.0), dtype=np.float64)


def row_loss(rows: F32, thresholds: F64, bits: int) -> F64:
    """Squared error of each row, symmetric codes.

    Args:
        rows: float32 [rows, n].
        thresholds: float64 [rows], >= 0; 0 leaves nothing but zeros.
        bits: Width of the codes.

    Returns:
        float64 [rows], summed over each row.
    """
    top = code_range(bits)[1]
    scales = np.where(thresholds > 0, thresholds / top, 1.0).astype(np.float32)[:, None]
    codes = np.clip(np.rint(rows / scales), -top, top)
    error = rows - codes * scales
    return np.asarray(np.einsum("ij,ij->i", error, error, dtype=np.float64))


def rows_error(rows: F32, params: QParams) -> F64:
    """Squared error of each row under any kind of codes.

    Args:
        rows: float32 [rows, n].
        params: One scale per row, `axis` 0.

    Returns:
        float64 [rows], summed over each row.
    """
    step = max(1, _BLOCK // max(rows.shape[1], 1))
    found = np.empty(len(rows))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        some = replace(params, scale=params.scale[part], zero_point=params.zero_point[part])
        error = rows[part] - dequantize(quantize(rows[part], some), some)
        found[part] = np.einsum("ij,ij->i", error, error, dtype=np.float64)
    return found

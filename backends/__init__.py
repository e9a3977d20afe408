"""Writers: a float or quantized `onnx_ir.Model` in, a bundle out. Each target is one row."""

from __future__ import annotations

from typing import Final

from qconvert.backends.ncnn import backend as ncnn
from qconvert.backends.onnx import backend as onnx
from qconvert.backends.raw import backend as raw
from qconvert.backends.tensorrt import backend as tensorrt
from qconvert.target import Backend

__all__ = ["BACKENDS", "Backend"]

BACKENDS: Final[dict[str, Backend]] = {
    row.name: row for row in (ncnn.BACKEND, tensorrt.BACKEND, raw.BACKEND, onnx.BACKEND)
}

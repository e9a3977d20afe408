"""Writers: a float or quantized `onnx_ir.Model` in, a bundle out. Each target is one row."""

from __future__ import annotations

from typing import Final

from qconvert.backends.onnx import policy as onnx_policy
from qconvert.backends.onnx import writer as onnx_writer
from qconvert.target import Backend

__all__ = ["BACKENDS", "Backend"]

BACKENDS: Final[dict[str, Backend]] = {
    row.name: row
    for row in (
        Backend(
            "onnx",
            onnx_policy.POLICY,
            onnx_writer.write,
            onnx_writer.problems,
            onnx_writer.open_bundle,
            onnx_writer.open_float,
            onnx_writer.operators,
        ),
    )
}

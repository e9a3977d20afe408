"""ONNX files: any opset from 7 on, float16 to double, Q/DQ and QOperator models."""

from __future__ import annotations

from qconvert.frontends.onnx.reader import operators, read

__all__ = ["operators", "read"]

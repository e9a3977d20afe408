"""Bring fully connected layers into one form: y = x W + b, nothing scaled, x not transposed.

    alpha (A B) + beta C = A (alpha B) + (beta C)          x M = Gemm(x, M) for a constant matrix M

A MatMul by a constant matrix whose input is [1, K] becomes a Gemm, which later passes can give a
bias; a constant that multiplies B or C moves into it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from typing_extensions import override

from qconvert.graph import constant
from qconvert.passes.rewrite import NodePass, known_shape, set_constant

__all__ = ["NormalizeGemm"]


def _coefficients(node: ir.Node) -> tuple[float, float]:
    return node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)


class NormalizeGemm(NodePass):
    """Turn MatMul by a matrix into Gemm, and alpha and beta into weights."""

    step = "normalize_gemm"

    @override
    def matches(self, node: ir.Node) -> bool:
        if node.domain:
            return False
        if node.op_type == "Gemm":
            return _coefficients(node) != (1.0, 1.0)
        if node.op_type != "MatMul" or constant(node.inputs[0]) is not None:
            return False
        shapes = [known_shape(value) for value in node.inputs]
        return all(shape is not None and len(shape) == 2 for shape in shapes)

    @override
    def why_not(self, node: ir.Node) -> str | None:
        if node.op_type == "MatMul":
            return None if _is_weight(node.inputs[1]) else "both its matrices are computed"
        if constant(node.inputs[1]) is None:
            return "it has an alpha or beta and its weight is computed at run time"
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and constant(bias) is None:
            return "it has an alpha or beta and its bias is computed at run time"
        return None

    @override
    def rewrite(self, node: ir.Node) -> None:
        if node.op_type == "MatMul":
            node.op_type = "Gemm"
            return
        alpha, beta = _coefficients(node)
        weight = constant(node.inputs[1])
        assert weight is not None
        set_constant(node, 1, (weight.astype(np.float64) * alpha).astype(np.float32), "weight")
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if bias is not None:
            set_constant(node, 2, (bias.astype(np.float64) * beta).astype(np.float32), "bias")
        for name in ("alpha", "beta"):
            node.attributes[name] = ir.AttrFloat32(name, 1.0)


def _is_weight(value: ir.Value | None) -> bool:
    """Whether `value` is constant, or quantized constants on their way to being a weight."""
    while value is not None and constant(value) is None:
        producer = value.producer()
        if producer is None or producer.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            return False
        value = producer.inputs[0]
    return value is not None

"""The rows of the manifest: every layer, with the quantization its Q/DQ nodes say it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qconvert.backends.onnx.bias import COMPUTE, quantized_inputs
from qconvert.bundle import LayerRow

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["layer_rows"]


def layer_rows(model: ir.Model) -> list[LayerRow]:
    """One row per layer with weights, in topological order."""
    return [_row(node) for node in model.graph if node.op_type in COMPUTE and node.domain == ""]


def _row(node: ir.Node) -> LayerRow:
    """How one layer runs."""
    pair = quantized_inputs(node)
    if pair is None:
        return LayerRow(str(node.name), node.op_type, 32)
    x, w = (tensor.params for tensor in pair)
    details: dict[str, Any] = {"input_bits": x.bits}
    if x.zero_point:
        details["input_zero_point"] = int(x.zero_point)
    if w.log2:
        details["log2"] = True
    scales = [float(scale) for scale in w.scale.reshape(-1)]
    return LayerRow(str(node.name), node.op_type, w.bits, scales, float(x.scale), details)

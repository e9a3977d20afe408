"""The rows of the manifest: every layer, with the quantization its Q/DQ nodes say it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qconvert.backends.onnx.qdq import COMPUTE, QuantizedTensor, quantized_inputs, width
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
    x, w = pair
    details: dict[str, Any] = {"input_bits": width(x)}
    if _zero_point(x):
        details["input_zero_point"] = _zero_point(x)
    return LayerRow(
        str(node.name),
        node.op_type,
        width(w),
        [float(scale) for scale in w.scale.reshape(-1)],
        float(np.max(x.scale)),
        details,
    )


def _zero_point(tensor: QuantizedTensor) -> int:
    """The one zero point of an activation."""
    return 0 if tensor.zero_point is None else int(tensor.zero_point.reshape(-1)[0])

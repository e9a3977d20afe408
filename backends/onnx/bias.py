"""Biases of quantized layers as int32 codes at scale input * weight.

`b ≈ (s_x * s_w) * round(b / (s_x * s_w))`: exactly what onnxruntime's integer kernels add to
their sums. Written into the file, every optimization level computes the same function; left in
float, onnxruntime would round the biases itself at some levels and not at others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.graph import constant
from qconvert.qdq import codes_of, pair_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.qdq import Codes, Pair
    from qconvert.quant import F32
    from qconvert.report import Report

__all__ = ["COMPUTE", "quantize_biases", "quantized_inputs"]

COMPUTE: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that are layers: they have weights and run on integers."""

_STEP = "int32_bias"
_LARGEST = 2**31 - 1


def quantized_inputs(node: ir.Node) -> tuple[Pair, Codes] | None:
    """Activation and weight of a layer; None unless both are quantized, the weight constant."""
    if node.op_type not in COMPUTE or node.domain != "" or len(node.inputs) < 2:
        return None
    first, second = pair_of(node.inputs[0]), codes_of(node.inputs[1])
    return None if first is None or second is None else (first, second)


def quantize_biases(model: ir.Model, report: Report) -> None:
    """Turn the float bias of every quantized layer into int32 codes and a DequantizeLinear."""
    for node in list(model.graph):
        pair = quantized_inputs(node)
        if pair is None or len(node.inputs) < 3 or node.inputs[2] is None:
            continue
        reason = _why_not(node, *pair)
        if reason is not None:
            report.kept(_STEP, str(node.name), reason)
            continue
        _quantize(model.graph, node, *pair)
        report.did(_STEP, str(node.name))


def _why_not(node: ir.Node, x: Pair, w: Codes) -> str | None:
    """Why a bias must stay float; None when its codes say the same."""
    bias = _real(node.inputs[2])
    if bias is None:
        return "its bias is computed at run time"
    if w.params.log2:
        return "its weight is made of exponents: its sums have no one scale"
    if any(node.attributes.get_float(key, 1.0) != 1.0 for key in ("alpha", "beta")):
        return "its bias or product is multiplied (alpha, beta)"
    if bias.ndim != 1 or w.params.scale.size not in {1, bias.size}:
        return "its bias is not one number per output channel"
    if np.max(np.abs(bias / _scale(x, w)), initial=0.0) > _LARGEST:
        return "its bias does not fit into int32 at the scale of its products"
    return None


def _real(value: ir.Value | None) -> F32 | None:
    """A constant's numbers."""
    array = constant(value)
    return None if array is None else np.asarray(array, dtype=np.float32)


def _scale(x: Pair, w: Codes) -> F32:
    """Scale of the products: [] or [channels]."""
    return np.asarray(x.params.scale * w.params.scale, dtype=np.float32)


def _quantize(graph: ir.Graph, node: ir.Node, x: Pair, w: Codes) -> None:
    """Replace the bias of one layer."""
    old = node.inputs[2]
    assert old is not None
    bias, scale = _real(old), _scale(x, w)
    assert bias is not None
    codes = np.rint(bias.astype(np.float64) / scale.astype(np.float64)).astype(np.int32)
    base = f"{node.name}/bias"
    inputs = [
        _initializer(graph, f"{base}.codes", codes),
        _initializer(graph, f"{base}.scale", scale),
    ]
    attributes = {"axis": 0} if scale.ndim else {}
    fresh = ir.node(
        "DequantizeLinear",
        inputs,
        attributes,
        name=base,
        outputs=[ir.val(base, ir.DataType.FLOAT, ir.Shape(bias.shape))],
    )
    graph.insert_before(node, fresh)
    node.replace_input_with(2, fresh.outputs[0])
    if not old.uses() and not old.is_graph_output():
        graph.initializers.pop(str(old.name), None)


def _initializer(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """A new constant of the graph."""
    tensor = ir.tensor(array, name=name)
    value = ir.val(name, tensor.dtype, tensor.shape.numpy(), const_value=tensor)
    graph.register_initializer(value)
    return value

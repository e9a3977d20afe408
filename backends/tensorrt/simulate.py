"""What TensorRT computes from a float model and a cache, as a model that onnxruntime runs.

Versions before 8 read no Q/DQ nodes, and opsets of their time have none. Their bundle is run with
onnxruntime's own (`com.microsoft`), put where the rules of placement have them, at the scales of
the cache. Weights need nothing: they stand on the grid that TensorRT finds for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.backends.tensorrt.lowering import new_constant
from qconvert.backends.tensorrt.placement import neighbours
from qconvert.graph import constant

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["simulated"]

_DOMAIN: Final = "com.microsoft"
_LAYERS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def simulated(model: ir.Model, scales: Mapping[str, float], floats: Collection[str]) -> ir.Model:
    """A copy of a float model that rounds where TensorRT would.

    Args:
        model: The float model beside a cache.
        scales: Tensor → scale.
        floats: Layers that stay in float.
    """
    copy = model.clone()
    graph = copy.graph
    allowed = [node for node in graph if str(node.name) not in floats]
    integer = {node for node in allowed if _is_layer(node, scales)}
    readers = [(node, 0) for node in graph if node in integer]
    readers += [(node, 1) for node in graph if node in integer and constant(node.inputs[1]) is None]
    readers += neighbours(allowed, integer)
    pairs: dict[ir.Value, ir.Value] = {}
    for node, index in readers:
        value = node.inputs[index]
        if value is None or str(value.name) not in scales:
            continue
        if value not in pairs:
            pairs[value] = _pair(graph, value, scales[str(value.name)])
        node.replace_input_with(index, pairs[value])
    graph.opset_imports[_DOMAIN] = 1
    return copy


def _is_layer(node: ir.Node, scales: Mapping[str, float]) -> bool:
    """Whether a node runs on integers."""
    if node.domain or node.op_type not in _LAYERS or node.inputs[0] is None:
        return False
    known = str(node.inputs[0].name) in scales
    second = node.inputs[1]
    stored = constant(second) is not None
    return known and (stored or (second is not None and str(second.name) in scales))


def _pair(graph: ir.Graph, value: ir.Value, scale: float) -> ir.Value:
    """Round `value` to the grid of `scale`; gives the rounded value."""
    maker = value.producer()
    parameters = [
        new_constant(graph, f"{value.name}/scale", np.asarray(scale, np.float32)),
        new_constant(graph, f"{value.name}/zero_point", np.asarray(0, np.int8)),
    ]
    codes = ir.val(f"{value.name}/quantized", ir.DataType.INT8, value.shape)
    real = ir.val(f"{value.name}/dequantized", ir.DataType.FLOAT, value.shape)
    nodes = [
        ir.node(
            kind, [given, *parameters], domain=_DOMAIN, outputs=[made], name=f"{made.name}/{kind}"
        )
        for kind, given, made in (
            ("QuantizeLinear", value, codes),
            ("DequantizeLinear", codes, real),
        )
    ]
    if maker is None:
        graph.insert_before(graph[0], nodes)
    else:
        graph.insert_after(maker, nodes)
    return real

"""What a quantized model says about itself, and what it is without its quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import common

from qconvert.graph import is_output
from qconvert.passes.rewrite import absorb, add_initializer
from qconvert.qdq import codes_of, pair_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.qdq import Codes

__all__ = ["has_qdq", "restore_weight", "weight_name", "without_qdq"]


def has_qdq(model: ir.Model) -> bool:
    """Whether `model` holds QuantizeLinear or DequantizeLinear nodes."""
    kinds = {"QuantizeLinear", "DequantizeLinear"}
    return any(node.op_type in kinds and not node.domain for node in model.graph)


def weight_name(codes: Codes) -> str:
    """The name of the float weight that `codes` stand for."""
    stored = codes.node.inputs[0]
    assert stored is not None
    return str(stored.name).removesuffix("/codes")


def restore_weight(graph: ir.Graph, codes: Codes) -> ir.Value:
    """Put a float weight in the place of its codes; returns it."""
    real = add_initializer(graph, weight_name(codes), codes.real())
    codes.node.outputs[0].replace_all_uses_with(real)
    graph.remove(codes.node, safe=True)
    return real


def without_qdq(model: ir.Model) -> ir.Model:
    """A copy of `model` in float: activations as they are, weights at the values of their codes.

    Names of values and layers stay; a pair whose scale is computed at run time stays too.
    """
    copy = model.clone()
    for node in tuple(copy.graph):
        if node.op_type != "DequantizeLinear" or node.domain or node.graph is None:
            continue
        pair, codes = pair_of(node.outputs[0]), codes_of(node.outputs[0])
        if pair is not None and not _stuck(pair.output, pair.source):
            absorb(node, pair.source)
        elif codes is not None:
            restore_weight(copy.graph, codes)
    common.RemoveUnusedNodesPass()(copy)
    return copy


def _stuck(output: ir.Value, source: ir.Value) -> bool:
    """Whether an output of the network cannot do without its pair, for want of a name."""
    return is_output(output) and (source.producer() is None or is_output(source))

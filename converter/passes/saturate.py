"""The simulation of a target whose 8-bit codes stop at -127.

    x → QuantizeLinear → DequantizeLinear

becomes

    x → QuantizeLinear → Clip → DequantizeLinear

Symmetric int8 codes are narrow (|q| <= 127), but QuantizeLinear saturates at -128. A model keeps
the plain pair, which runtimes recognize; what is compared with ncnn must stop where ncnn stops, or
every value below the range differs by one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.passes.rewrite import add_initializer

if TYPE_CHECKING:
    from qconvert.plan import Policy

__all__ = ["saturating_as"]

_LOWEST: Final = np.asarray(-127, np.int8)


def saturating_as(policy: Policy, model: ir.Model) -> ir.Model:
    """The Q/DQ model as the target of `policy` computes it; `model` itself where that is so."""
    if not policy.narrow_activations:
        return model
    copy = model.clone()
    graph = copy.graph
    lowest = add_initializer(graph, "lowest_code", _LOWEST)
    for node in graph:
        codes = node.outputs[0]
        if node.op_type == "QuantizeLinear" and codes.dtype == ir.DataType.INT8:
            _stop(graph, node, lowest)
    return copy


def _stop(graph: ir.Graph, node: ir.Node, lowest: ir.Value) -> None:
    """Let every reader of the codes that `node` makes read them bounded from below."""
    codes = node.outputs[0]
    bounded = ir.val(f"{codes.name}/bounded", dtype=codes.dtype, shape=codes.shape)
    clip = ir.node("Clip", [codes, lowest], outputs=[bounded], name=f"{node.name}/bound")
    codes.replace_all_uses_with(bounded)
    clip.replace_input_with(0, codes)
    graph.insert_after(node, clip)

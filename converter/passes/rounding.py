"""The simulation of a target whose quantizer is C code: `round`, then a clamp to ±127.

    QuantizeLinear(x, s)    rounds half to even          and stops at -128 and 127
    ncnn's float2int8       rounds half away from zero   and stops at -127 and 127
                            (src/layer/quantize.cpp, static_cast<int>(round(v)))

A model keeps QuantizeLinear, which runtimes recognize; what is compared with ncnn must do as ncnn
does. Otherwise every clipped pixel differs by one step, and a camera's (pixel - 127.5) / 128 at a
scale of 1/128, where every value lies halfway, differs in every second pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.graph import constant
from qconvert.passes.rewrite import add_initializer, names_in

if TYPE_CHECKING:
    from qconvert.plan import Policy

__all__ = ["quantizing_as"]

_LIMIT: Final = 127


def quantizing_as(policy: Policy, model: ir.Model) -> ir.Model:
    """The Q/DQ model as the target of `policy` computes it; `model` itself where that is so."""
    if not policy.rounds_away:
        return model
    copy = model.clone()
    taken = names_in(copy.graph)
    for node in copy.graph:
        if _is_plain(node):
            _spell_out(copy.graph, node, taken)
    return copy


def _is_plain(node: ir.Node) -> bool:
    """Whether `node` makes symmetric int8 codes with one constant scale."""
    if node.op_type != "QuantizeLinear" or len(node.inputs) < 3:
        return False
    scale, zero_point = constant(node.inputs[1]), constant(node.inputs[2])
    if scale is None or zero_point is None or scale.size != 1:
        return False
    return zero_point.dtype == np.int8 and not zero_point.any()


def _spell_out(graph: ir.Graph, node: ir.Node, taken: set[str]) -> None:
    """Replace `node` by sign(v) * floor(|v| + 1/2), bounded, for v = x * (1 / scale)."""
    codes, scale = node.outputs[0], constant(node.inputs[1])
    assert scale is not None
    tape = ir.tape.Tape()

    def number(part: str, value: float) -> ir.Value:
        return add_initializer(graph, f"{codes.name}/{part}", np.asarray(value, np.float32), taken)

    scaled = tape.op("Mul", [node.inputs[0], number("reciprocal", float(1 / scale.item()))])
    up = tape.op("Add", [tape.op("Abs", [scaled]), number("half", 0.5)])
    rounded = tape.op("Mul", [tape.op("Sign", [scaled]), tape.op("Floor", [up])])
    limits = [number("lowest", -_LIMIT), number("highest", _LIMIT)]
    bounded = tape.op("Clip", [rounded, *limits])
    result = tape.op("Cast", [bounded], {"to": ir.DataType.INT8})
    for index, value in enumerate(made.outputs[0] for made in tape.nodes):
        value.name = f"{codes.name}/step_{index}"
        value.shape = codes.shape
        value.dtype = ir.DataType.INT8 if value is result else ir.DataType.FLOAT
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], list(tape.nodes), [codes], [result]
    )

"""Quantize layers of which the target holds the weights alone as integers.

    codes → DequantizeLinear → LSTM

Such a layer finds the scales of its inputs as it runs (ncnn's LSTM, GRU and RNN: one for each
step), so there is nothing to calibrate: each row of a weight gets the scale that keeps its largest
magnitude. The graph says what is known ahead of time and no more; how far the rounding of inputs at
run time moves the result is for verification to measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.graph import constant, index_rows
from qconvert.passes.choices import Choices
from qconvert.passes.insert_qdq import Writer, storage
from qconvert.passes.rewrite import names_in
from qconvert.quant import quantize, symmetric

if TYPE_CHECKING:
    from qconvert.plan import Policy, Scheme
    from qconvert.report import Report

__all__ = ["quantize_weights", "why_not", "with_integer_weights"]

_WEIGHTS: Final = {"LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2), "Gather": (0,)}
"""Inputs that hold weights: [directions, rows, columns], and a table [rows, columns]."""
_ROWS: Final = 1


def with_integer_weights(model: ir.Model, policy: Policy) -> list[ir.Node]:
    """The nodes that such a rule of `policy` is about."""
    rules = {rule.op_type for rule in policy.rules.values() if rule.role == "weights"}
    return [
        node
        for node in model.graph
        if not node.domain
        and node.op_type in rules
        and (node.op_type != "Gather" or _is_lookup(node))
    ]


def _is_lookup(node: ir.Node) -> bool:
    """Whether a Gather takes rows of a float table by indices that a network input holds."""
    cast = node.inputs[1].producer() if node.inputs[1] is not None else None
    table = constant(node.inputs[0])
    known = cast is not None and index_rows(cast.inputs[0]) is not None
    return known and table is not None and table.dtype == np.float32


def why_not(node: ir.Node, choices: Choices) -> str | None:
    """Why `node` stays float; None when its weights can be quantized."""
    reason = choices.wanted(node).why_float
    if reason is not None:
        return reason
    weights = [node.inputs[index] for index in _WEIGHTS[node.op_type]]
    if any(weight is None or constant(weight) is None for weight in weights):
        return "its weight is computed at run time"
    return None


def quantize_weights(model: ir.Model, policy: Policy, scheme: Scheme, report: Report) -> bool:
    """Quantize in place; returns whether anything was.

    Directions share the scale of a row: DequantizeLinear has one axis.
    """
    choices = Choices.of(scheme, model)
    writer = Writer(model, names_in(model.graph))
    done = False
    for node in with_integer_weights(model, policy):
        reason = why_not(node, choices)
        if reason is not None:
            report.kept("quantize_weights", str(node.name), reason)
            continue
        bits = choices.wanted(node).weight_bits
        for index in _WEIGHTS[node.op_type]:
            _quantize(writer, node, index, bits)
        report.did("quantize_weights", str(node.name))
        done = True
    for initializer in tuple(model.graph.initializers.values()):
        if not initializer.uses() and not initializer.is_graph_output():
            del model.graph.initializers[str(initializer.name)]
    return done


def _quantize(writer: Writer, node: ir.Node, index: int, bits: int) -> None:
    """Put codes in the place of one weight."""
    weight = node.inputs[index]
    array = constant(weight)
    assert weight is not None
    assert array is not None
    real = array.astype(np.float32)
    rows = None if node.op_type == "Gather" else _ROWS
    columns = None if rows is None else (0, 2)
    params = symmetric(np.abs(real).max(axis=columns, initial=0.0), bits=bits, axis=rows)
    name = str(weight.name)
    codes = writer.constant(f"{name}/codes", quantize(real, params).astype(storage(params)))
    output = writer.value(f"{name}/dequantized", ir.DataType.FLOAT, weight)
    inputs = [codes, *writer.parameters(name, params)]
    attributes = {} if rows is None else {"axis": rows}
    new = ir.node(
        "DequantizeLinear", inputs, attributes, outputs=[output], name=f"{name}/dequantize"
    )
    writer.graph.insert_before(node, new)
    node.replace_input_with(index, output)

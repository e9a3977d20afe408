"""Give layers that share a weight, but need different codes of it, a copy each.

A weight that two layers read has one encoding: half the storage, and the same numbers in both.
That stands only where both want it alike. Layers that want other widths, count their output
channels along another axis, or group them otherwise get a copy of their own before scales are
looked for, called `<layer>.weight`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qconvert.graph import constant
from qconvert.passes.choices import Choices, is_layer
from qconvert.passes.linear import output_axis
from qconvert.passes.rewrite import add_initializer

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.plan import Scheme
    from qconvert.report import Report

__all__ = ["separate_weights"]

_STEP = "separate_weights"


def separate_weights(model: ir.Model, scheme: Scheme, report: Report) -> None:
    """Change `model` in place; it computes what it did.

    Args:
        model: The optimized float model.
        scheme: What the user asks for, layer by layer.
        report: Told of every copy.
    """
    choices = Choices.of(scheme, model)
    owners: dict[ir.Value, dict[tuple[object, ...], ir.Value]] = {}
    for node in tuple(model.graph):
        if not is_layer(node) or choices.wanted(node).why_float is not None:
            continue
        weight = node.inputs[1]
        assert weight is not None
        known = owners.setdefault(weight, {})
        key = _encoding(node, choices)
        if not known:
            known[key] = weight
        elif key not in known:
            held = constant(weight)
            assert held is not None
            known[key] = add_initializer(model.graph, f"{node.name}.weight", held)
            report.did(_STEP, str(node.name))
        node.replace_input_with(1, known[key])


def _encoding(node: ir.Node, choices: Choices) -> tuple[object, ...]:
    """What two layers must have in common to share codes."""
    wanted = choices.wanted(node)
    axis = 1 if node.op_type == "MatMul" else output_axis(node)
    return axis, node.attributes.get_int("group", 1), wanted.weight_bits, wanted.log2

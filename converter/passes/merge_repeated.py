"""Compute nothing twice: nodes of one operator, inputs and attributes give one result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir
from typing_extensions import override

from qconvert.graph import is_output
from qconvert.passes.rewrite import absorb

if TYPE_CHECKING:
    from qconvert.report import Report

__all__ = ["MergeRepeated"]

_RANDOM: Final = frozenset(
    {
        "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
        "RandomUniformLike",
    }
)  # fmt: skip

_PLAIN: Final = frozenset(
    {
        ir.AttributeType.INT, ir.AttributeType.INTS, ir.AttributeType.FLOAT,
        ir.AttributeType.FLOATS, ir.AttributeType.STRING, ir.AttributeType.STRINGS,
    }
)  # fmt: skip


def _key(node: ir.Node) -> tuple[object, ...] | None:
    """What two nodes share when they compute the same; None for a node that is one of a kind."""
    if node.op_type in _RANDOM or len(node.outputs) != 1:
        return None
    if not all(attribute.type in _PLAIN for attribute in node.attributes.values()):
        return None
    attributes = tuple(
        (name, repr(node.attributes[name].value)) for name in sorted(node.attributes)
    )
    return (node.domain, node.op_type, node.overload, tuple(node.inputs), attributes)


class MergeRepeated(ir.passes.InPlacePass):
    """Let readers of a repeated node read the first of its kind."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    @override
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        known: dict[tuple[object, ...], ir.Value] = {}
        for node in tuple(model.graph):
            key = _key(node)
            if key is None:
                continue
            first = known.setdefault(key, node.outputs[0])
            if first is node.outputs[0]:
                continue
            if is_output(node.outputs[0]):
                self.report.kept("merge_repeated", str(node.name), "it is an output of the network")
                continue
            self.report.did("merge_repeated", str(node.name))
            absorb(node, first)
            modified = True
        return ir.passes.PassResult(model, modified=modified)

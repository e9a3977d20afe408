"""Quantize nothing twice.

Quantizing is idempotent: what is on a grid already stays when it is rounded to the same grid,
q(dq(q(x))) = q(x). So a pair behind an equal pair does nothing, and equal pairs that read one
value are one pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
from typing_extensions import override

from qconvert.graph import is_output
from qconvert.passes.rewrite import absorb
from qconvert.qdq import pair_of

if TYPE_CHECKING:
    from qconvert.quant import QParams
    from qconvert.report import Report

__all__ = ["MergeQuantizers", "grid"]


def grid(params: QParams) -> tuple[object, ...]:
    """What two tensors have in common when they are on the same grid."""
    scale, zero = params.scale.tobytes(), params.zero_point.tobytes()
    return scale, zero, params.bits, params.signed, params.symmetric, params.axis


class MergeQuantizers(ir.passes.InPlacePass):
    """Remove every DequantizeLinear whose output exists already."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    @override
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        # The first of equal pairs stands before the readers of all of them.
        known: dict[tuple[ir.Value, tuple[object, ...]], ir.Value] = {}
        for node in tuple(model.graph):
            pair = pair_of(node.outputs[0]) if node.outputs else None
            if pair is None or pair.nodes[-1] is not node:
                continue
            before = pair_of(pair.source)
            if before is not None and grid(before.params) == grid(pair.params):
                twin = pair.source
            else:
                twin = known.setdefault((pair.source, grid(pair.params)), pair.output)
            if twin is pair.output or is_output(pair.output):
                continue
            self.report.did("merge_quantizers", str(pair.nodes[0].name))
            absorb(node, twin)
            modified = True
        return ir.passes.PassResult(model, modified=modified)

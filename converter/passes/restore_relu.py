"""Write out the Relu that a grid stands for.

Where the lowest code is the zero point, quantizing cuts off what is negative,

    q(x) = q(max(x, 0))      and q(x) = q(min(max(x, 0), 6)) when the grid ends at 6

and quantizers drop the Relu before such a grid, because it does nothing there. Without the grid,
in the float model or on a target that has no place for it, it is missed. Putting it back changes
nothing as long as the grid is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
from typing_extensions import override

from qconvert.passes.rewrite import add_initializer
from qconvert.passes.signs import never_negative
from qconvert.qdq import pair_of

if TYPE_CHECKING:
    from qconvert.qdq import Pair
    from qconvert.report import Report

__all__ = ["RestoreRelu"]

_SIX: Final = 1e-3
"""How far from 6 a grid may end to stand for a Relu6, relative."""


class RestoreRelu(ir.passes.InPlacePass):
    """Insert Relu or Clip before grids that hold nothing negative, where the value may be."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    @override
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        pairs = [pair for pair in map(_pair, model.graph) if pair is not None]
        positive = never_negative(model.graph) if pairs else set()
        made: dict[tuple[ir.Value, bool], ir.Value] = {}
        for pair in pairs:
            if str(pair.source.name) in positive:
                continue
            six = abs(float(pair.params.threshold) - 6) <= 6 * _SIX
            if (pair.source, six) not in made:
                self.report.did("restore_relu", str(pair.source.name))
                made[pair.source, six] = _insert(model.graph, pair, six=six)
            pair.nodes[0].replace_input_with(0, made[pair.source, six])
        return ir.passes.PassResult(model, modified=bool(made))


def _pair(node: ir.Node) -> Pair | None:
    """The pair that ends at `node`, when its grid holds nothing negative."""
    pair = pair_of(node.outputs[0]) if node.op_type == "DequantizeLinear" else None
    if pair is None or int(pair.params.zero_point) != pair.params.low:
        return None
    return pair if pair_of(pair.source) is None else None


def _insert(graph: ir.Graph, pair: Pair, *, six: bool) -> ir.Value:
    """A Relu, or a Relu6, of the value that a pair reads."""
    source, first = pair.source, pair.nodes[0]
    name = f"{source.name}/relu" + ("6" if six else "")
    output = ir.val(name, dtype=ir.DataType.FLOAT, shape=first.outputs[0].shape)
    if six:
        bounds = [
            add_initializer(graph, f"{name}.{which}", np.asarray(bound, np.float32))
            for which, bound in (("min", 0), ("max", 6))
        ]
        relu = ir.node("Clip", [source, *bounds], outputs=[output], name=name)
    else:
        relu = ir.node("Relu", [source], outputs=[output], name=name)
    graph.insert_before(first, relu)
    return output

"""How a model-local function is made and called.

A kind of function (`Yolo`, `PriorBox`, ...) has one name. Its body depends on its parameters, so
each distinct body is an *overload* of that name, and the parameters stand as attributes on the
calling node: onnxruntime runs the body, a backend with a native layer reads the attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from qconvert.graph import DOMAIN, OPSET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["call"]


def call(
    model: ir.Model,
    kind: str,
    inputs: Sequence[ir.Value],
    attributes: Mapping[str, int | float | str | Sequence[int] | Sequence[float]],
    body: Callable[[ir.tape.Tape, Sequence[ir.Value]], Sequence[ir.Value]],
    *,
    name: str,
) -> ir.Node:
    """Add a function to `model` and return a node that calls it, not yet in any graph.

    Args:
        model: Gets the function and the opset import.
        kind: The function's name, e.g. `Yolo`.
        inputs: Values of the calling graph. The body sees stand-ins of the same type and shape.
        attributes: Parameters a backend reads back from the node.
        body: Builds the body on a tape, from the stand-ins, in standard operators of `OPSET`;
            returns the outputs, with type and shape set where they are known.
        name: Name of the node, and the overload.

    Returns:
        The node; outputs carry the types and shapes of the body's outputs and no names.
    """
    stand_ins = [
        ir.val(f"input_{index}", type=value.type, shape=value.shape)
        for index, value in enumerate(inputs)
    ]
    tape = ir.tape.Tape()
    results = list(body(tape, stand_ins))
    graph = ir.Graph(
        stand_ins, results, nodes=tape.nodes, name=f"{kind}_{name}", opset_imports={"": OPSET}
    )
    node = ir.node(
        kind,
        list(inputs),
        dict(attributes),
        domain=DOMAIN,
        overload=name,
        num_outputs=len(results),
        name=name,
    )
    for output, result in zip(node.outputs, results, strict=True):
        output.type = result.type
        output.shape = result.shape
    declared = list(node.attributes.values())
    function = ir.Function(DOMAIN, kind, name, graph=graph, attributes=declared)
    model.functions[function.identifier()] = function
    model.graph.opset_imports[DOMAIN] = 1
    return node

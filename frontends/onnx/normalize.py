"""Any ONNX graph to the conventions of the intermediate representation.

One walk in topological order: every node is brought to opset 21 with the shapes and constants of
its inputs at hand, functions and control flow with a known course are inlined, and what the
builder can fold disappears. Weights take part without their data (`Request.opaque`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from qconvert.errors import ModelFormatError, UnsupportedError
from qconvert.frontends.onnx.builder import Builder, known_shape
from qconvert.frontends.onnx.interface import (
    add_inputs,
    add_outputs,
    input_shapes,
    warn_of_shapes,
)
from qconvert.frontends.onnx.scope import Scope
from qconvert.frontends.onnx.walk import Walk
from qconvert.graph import IR_VERSION, OPSET

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Request", "normalize"]


@dataclass(frozen=True, slots=True)
class Request:
    """What the reader wants of a model.

    Attributes:
        opaque: Graph inputs that are weights whose data stayed behind.
        input_shapes: Network input → shape the user gives.
        file: Name of the file, for messages.
    """

    opaque: frozenset[str] = frozenset()
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    file: str = ""


def normalize(model: ir.Model, request: Request) -> tuple[ir.Model, list[str]]:
    """Rebuild a model.

    Args:
        model: Any opset from 7 on, functions and control flow included.
        request: See `Request`.

    Returns:
        The new model (opset 21, float32, all shapes known; weights without data are still graph
        inputs, after the network's), and sentences for the user.

    Raises:
        ModelFormatError: If the model breaks ONNX's rules.
        UnsupportedError: With everything in it that cannot be read.
    """
    RemoveUnusedNodesPass()(model)
    graph = model.graph
    try:
        graph.sort()
    except ValueError as error:
        raise ModelFormatError(
            "the graph has a cycle", at=request.file, why="a network is a directed acyclic graph"
        ) from error
    network = [value for value in graph.inputs if str(value.name) not in request.opaque]
    shapes = input_shapes(network, request.input_shapes, request.file)
    builder = Builder([str(value.name) for value in graph.outputs])
    walk = Walk(builder, model, request.file)
    scope = Scope(dict(model.opset_imports))
    inputs = add_inputs(builder, network, shapes, scope.env)
    opaque = [
        _without_data(builder, value, scope)
        for value in graph.inputs
        if str(value.name) in request.opaque
    ]
    builder.replaced_batch = next(iter(shapes.replaced.values()), 1)
    walk.initializers(graph, scope)
    walk.nodes(graph, scope)
    if walk.problems:
        raise UnsupportedError.of(
            walk.problems,
            who="qconvert",
            fix="export the model without them, or cut it before them",
        )
    outputs = add_outputs(builder, graph.outputs, inputs, scope.env)
    if not shapes.replaced and not request.input_shapes:  # else they are about another input
        warn_of_shapes(builder, graph.outputs, outputs)
    return _finished(builder, [*inputs, *opaque], outputs, graph.name), builder.warnings


def _without_data(builder: Builder, value: ir.Value, scope: Scope) -> ir.Value:
    """Stand-in for a weight; wide and narrow floats will be float32 when it gets its data."""
    dtype = value.dtype or ir.DataType.FLOAT
    if dtype in {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}:
        dtype = ir.DataType.FLOAT
    stand_in = builder.variable(str(value.name), dtype, known_shape(value) or ())
    scope.env[value] = stand_in
    return stand_in


def _finished(
    builder: Builder, inputs: list[ir.Value], outputs: list[ir.Value], name: str | None
) -> ir.Model:
    """The new model, without what nothing needs."""
    constants: dict[str, ir.Value] = {}
    for node in builder.nodes:
        for value in node.inputs:
            if value is not None and value.const_value is not None:
                constants[str(value.name)] = value
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=builder.nodes,
        initializers=list(constants.values()),
        name=name or "model",
        opset_imports={"": OPSET},
    )
    model = ir.Model(graph, ir_version=IR_VERSION)
    RemoveUnusedNodesPass()(model)
    return model

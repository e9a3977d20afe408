"""If and Loop whose course is known: the branch that is taken, the iterations one by one.

Also the bodies the standard gives for operators younger than our opset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from qconvert.frontends.onnx.builder import type_proto
from qconvert.frontends.onnx.ops import Refused
from qconvert.frontends.onnx.scope import REFUSED
from qconvert.graph import constant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qconvert.frontends.onnx.call import Call
    from qconvert.frontends.onnx.scope import Scope
    from qconvert.frontends.onnx.walk import Walk

__all__ = ["OPERATORS", "run", "schema_body"]

OPERATORS: Final = ("If", "Loop")
_MAX_ITERATIONS: Final = 256


def run(
    walk: Walk, node: ir.Node, inputs: Sequence[ir.Value | None], scope: Scope, name: str
) -> list[ir.Value | None]:
    """Inline an If or a Loop.

    Raises:
        Refused: If its course depends on data.
    """
    if node.op_type == "If":
        return _branch(walk, node, inputs, scope, name)
    return _loop(walk, node, inputs, scope, name)


def _branch(
    walk: Walk, node: ir.Node, inputs: Sequence[ir.Value | None], scope: Scope, name: str
) -> list[ir.Value | None]:
    """The outputs of the branch that a constant condition takes."""
    condition = constant(inputs[0])
    if condition is None:
        raise Refused("its condition is computed from data")
    key = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
    body = node.attributes[key].as_graph()
    names = [scope.name_of(value) for value in node.outputs]
    inner = scope.branch(f"{name}/", body.outputs, names)
    walk.initializers(body, inner)
    walk.nodes(body, inner)
    return [inner.env.get(value) for value in body.outputs]


def _loop(
    walk: Walk, node: ir.Node, inputs: Sequence[ir.Value | None], scope: Scope, name: str
) -> list[ir.Value | None]:
    """Unroll a loop whose number of iterations is known."""
    trips = _trips(inputs)
    going = _is_true(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else True
    body = node.attributes["body"].as_graph()
    carried = list(inputs[2:])
    stacks: list[list[ir.Value]] = [[] for _ in body.outputs[1 + len(carried) :]]
    iteration = 0
    while going and (trips is None or iteration < trips):
        if iteration >= _MAX_ITERATIONS:
            raise Refused(f"it runs more than {_MAX_ITERATIONS} times")
        prefix = f"{name}/{iteration}"
        inner = scope.branch(f"{prefix}/", (), ())
        counter = walk.builder.constant(np.array(iteration, np.int64), f"{prefix}.iteration")
        state = walk.builder.constant(np.array(True), f"{prefix}.going")
        for parameter, value in zip(body.inputs, [counter, state, *carried], strict=True):
            inner.env[parameter] = value
        walk.initializers(body, inner)
        walk.nodes(body, inner)
        results = [inner.env.get(value) for value in body.outputs]
        if any(value is REFUSED for value in results):
            return [REFUSED] * len(node.outputs)
        going = _is_true(results[0])
        carried = results[1 : 1 + len(carried)]
        for stack, value in zip(stacks, results[1 + len(carried) :], strict=True):
            assert value is not None
            stack.append(value)
        iteration += 1
    stacked = [_stacked(walk, f"{name}/scan_{i}", stack) for i, stack in enumerate(stacks)]
    return [*carried, *stacked]


def _trips(inputs: Sequence[ir.Value | None]) -> int | None:
    """The largest number of iterations; None when only the condition ends the loop."""
    if not inputs or inputs[0] is None:
        return None
    trips = constant(inputs[0])
    if trips is None:
        raise Refused("the number of its iterations is computed from data")
    return int(trips.reshape(-1)[0])


def _is_true(value: ir.Value | None) -> bool:
    """A loop's condition, which must be known."""
    condition = constant(value)
    if condition is None:
        raise Refused("its condition is computed from data")
    return bool(condition.reshape(-1)[0])


def _stacked(walk: Walk, name: str, stack: Sequence[ir.Value]) -> ir.Value:
    """What a loop collects over its iterations, along a new first axis."""
    if not stack:
        raise Refused("it never runs, and what it collects is empty")
    axes = walk.builder.constant(np.array([0], np.int64), f"{name}.axes")
    rows = []
    for index, value in enumerate(stack):
        label = f"{name}/{index}"
        rows += walk.builder.emit("Unsqueeze", [value, axes], {}, name=label, outputs=[label])
    (result,) = walk.builder.emit("Concat", rows, {"axis": 0}, name=name, outputs=[name])
    return result


def schema_body(schema: onnx.defs.OpSchema, call: Call) -> ir.Function | None:
    """The body the standard gives for a call; None when it gives none."""
    rules: Any = schema  # the stubs lack these attributes
    if rules.has_function:
        body: onnx.FunctionProto = rules.function_body
    elif rules.has_context_dependent_function:
        content = rules.get_context_dependent_function(*_context(call))
        body = onnx.FunctionProto.FromString(content)
    else:
        return None
    # A body computes only the outputs that were asked for, but declares them all.
    produced = {name for node in body.node for name in node.output}
    while body.output and body.output[-1] not in produced:
        body.output.pop()
    return ir.from_proto(body) if produced.issuperset(body.output) else None


def _context(call: Call) -> tuple[bytes, list[bytes]]:
    """A call and the types of its inputs, as onnx's function builders want them."""
    node = onnx.NodeProto(op_type=call.op_type)
    node.input.extend("" if v is None else f"i{i}" for i, v in enumerate(call.inputs))
    node.output.extend(f"o{i}" if name else "" for i, name in enumerate(call.outputs))
    node.attribute.extend(ir.serde.serialize_attribute(a) for a in call.attributes.values())
    types = []
    for value in call.inputs:
        proto = onnx.TypeProto() if value is None else type_proto(value)
        types.append(proto.SerializeToString())
    return node.SerializeToString(), types

"""What adapters of operators to older opsets work with: attributes, constants, replacement."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx_ir as ir

from qconvert.graph import constant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

__all__ = [
    "Adapter",
    "add_constant",
    "expand",
    "given",
    "integers",
    "new_constant",
    "rank",
    "truncate",
]

Adapter: TypeAlias = "Callable[[ir.Node, int], str | None]"
"""(node, opset) → why the node has no form in that opset; None when it has been given one."""


def given(node: ir.Node, index: int) -> ir.Value | None:
    """An input, where the node has it."""
    return node.inputs[index] if index < len(node.inputs) else None


def integers(value: ir.Value | None) -> list[int] | None:
    """A constant as a list of integers; None when it is absent or computed."""
    array = constant(value)
    return None if array is None else [int(entry) for entry in array.reshape(-1)]


def rank(value: ir.Value | None) -> int | None:
    """How many axes a value has; None when that is not known."""
    return None if value is None or value.shape is None else len(value.shape)


def truncate(node: ir.Node, count: int) -> None:
    """Drop inputs from `count` on, and initializers that nobody reads any more."""
    for index in range(count, len(node.inputs)):
        value = node.inputs[index]
        node.replace_input_with(index, None)
        if value is not None and value.is_initializer() and not value.uses():
            assert node.graph is not None
            node.graph.initializers.pop(str(value.name), None)
    node.resize_inputs(min(count, len(node.inputs)))


def add_constant(node: ir.Node, part: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """A new initializer that belongs to `node`."""
    assert isinstance(node.graph, ir.Graph)
    return new_constant(node.graph, f"{node.name}.{part}", array)


def new_constant(graph: ir.Graph, base: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """A new initializer called `base`, or `base_1`, ... where that is taken."""
    name, count = base, 0
    while name in graph.initializers:
        count += 1
        name = f"{base}_{count}"
    tensor = ir.tensor(np.asarray(array, order="C"), name=name)
    value = ir.val(name, dtype=tensor.dtype, shape=array.shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def expand(node: ir.Node, tape: ir.tape.Tape, result: ir.Value) -> None:
    """Put the nodes of `tape` in the place of `node`; `result` gets the name of its output.

    Values between them are called `<node>/<operator>_<i>`.
    """
    graph, output = node.graph, node.outputs[0]
    assert graph is not None
    nodes = list(tape.nodes)
    for index, new in enumerate(nodes):
        new.name = f"{node.name}/{new.op_type}_{index}"
        new.metadata_props.update(node.metadata_props)
        for value in new.outputs:
            value.name = value.name or new.name
            value.type = value.type or output.type
    result.shape, result.type = output.shape, output.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, [output], [result])


def drop_defaults(node: ir.Node, defaults: Sequence[tuple[str, object]]) -> str | None:
    """Remove attributes that say what an older opset takes for granted."""
    for name, default in defaults:
        attribute = node.attributes.get(name)
        if attribute is None:
            continue
        value = attribute.value
        same = (
            list(value) == [default] * len(value)
            if isinstance(value, (list, tuple))
            else (value == default)
        )
        if not same:
            return f"it has {name} {value}"
        del node.attributes[name]
    return None

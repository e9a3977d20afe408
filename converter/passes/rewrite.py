"""The edits every pass makes, and the shape a pass has.

A pass visits the nodes it knows, asks why a node must stay, and rewrites it when nothing speaks
against it. The rewrite cannot fail: everything that could go wrong is asked before. What was done
and what was declined goes to the report.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir
from typing_extensions import override

from qconvert.graph import is_output, sole_consumer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from qconvert.report import Report

__all__ = [
    "NodePass",
    "absorb",
    "add_initializer",
    "known_shape",
    "names_in",
    "only_reader",
    "set_constant",
]


class NodePass(ir.passes.InPlacePass):
    """A pass over the nodes of the main graph, one node at a time, in topological order.

    Subclasses say which nodes concern them (`matches`), why one must stay (`why_not`) and what
    becomes of the others (`rewrite`).

    Attributes:
        step: The name of the pass in the report.
    """

    step: ClassVar[str]

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    @abstractmethod
    def matches(self, node: ir.Node) -> bool:
        """Whether `node` is of the kind this pass is about."""

    def why_not(self, node: ir.Node) -> str | None:  # noqa: ARG002 - most passes override it
        """Return why a matching `node` must stay, or None when the rewrite keeps the result."""
        return None

    @abstractmethod
    def rewrite(self, node: ir.Node) -> None:
        """Rewrite `node`; called only when `why_not` had nothing to say."""

    @override
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in tuple(model.graph):
            if node.graph is None or not self.matches(node):
                continue
            reason = self.why_not(node)
            if reason is not None:
                self.report.kept(self.step, str(node.name), reason)
                continue
            self.report.did(self.step, str(node.name))
            self.rewrite(node)
            modified = True
        return ir.passes.PassResult(model, modified=modified)


def only_reader(value: ir.Value, node: ir.Node) -> bool:
    """Whether `node` alone reads `value`, once, and the user does not see it."""
    return sole_consumer(value) is node


def known_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of `value`, or None while a dimension is unknown.

    Between passes every shape is known; within the first pass over an exporter's graph, the shapes
    behind computed Reshape targets and Slice bounds are not.
    """
    if value is None or value.shape is None:
        return None
    dims = [dim for dim in value.shape if isinstance(dim, int)]
    return tuple(dims) if len(dims) == len(value.shape) else None


def names_in(graph: ir.Graph) -> set[str]:
    """The names of all values of `graph`."""
    values = [value for node in graph for value in node.outputs]
    return {str(value.name) for value in (*graph.inputs, *values)} | set(graph.initializers)


def add_initializer(
    graph: ir.Graph,
    name: str,
    array: npt.NDArray[np.generic],
    taken: set[str] | None = None,
) -> ir.Value:
    """Add a constant to `graph` under `name`, or `name_1`, ... where that is taken.

    `taken` are the names of the graph, for callers that add many; the new one is added to it.
    """
    taken = names_in(graph) if taken is None else taken
    unique, count = name, 0
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    taken.add(unique)
    tensor = ir.tensor(array, name=unique)
    value = ir.val(unique, dtype=tensor.dtype, shape=array.shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def set_constant(node: ir.Node, index: int, array: npt.NDArray[np.generic], part: str) -> None:
    """Give `node` a new constant at input `index`.

    A constant that nobody else reads keeps its name; a shared or missing one is replaced by
    `<node>.<part>`, so that its other readers see what they saw.
    """
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    old = node.inputs[index] if index < len(node.inputs) else None
    if old is not None and old.is_initializer() and only_reader(old, node):
        tensor = ir.tensor(array, name=old.name)
        # New objects: a copy of a model shares tensors, types and shapes with the original.
        old.const_value, old.type = tensor, ir.TensorType(tensor.dtype)
        old.shape = ir.Shape(array.shape)
        return
    new = add_initializer(graph, f"{node.name}.{part}", array)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, new)
    if old is not None and old.is_initializer() and not old.uses() and not is_output(old):
        del graph.initializers[str(old.name)]


def absorb(node: ir.Node, source: ir.Value) -> None:
    """Remove `node` and let `source` stand for its output.

    The output's name stays in the graph where it can: when the user sees it, or when `source` had
    no other reader. (The blob after an in-place layer belongs to the last writer.)
    """
    graph = node.graph
    assert graph is not None
    output = node.outputs[0]
    renames = is_output(output) or (only_reader(source, node) and source.producer() is not None)
    name = output.name
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if renames:
        source.name = name

"""The few questions every stage asks of an onnx-ir graph, and the conventions behind them.

Conventions of the intermediate representation (between any two stages):

* opset `OPSET`, IR version `IR_VERSION`, float32 in and out, batch 1, all shapes known;
* a node that stands for a source layer carries that layer's name; helper nodes are called
  `<layer>/<part>`, initializers `<layer>.<part>` (`conv1.weight`, `conv1.bias`);
* a value carries the source's blob name;
* `node.metadata_props[PLACE]` says where the layer stands in the source (`deploy.prototxt:412`).
  It is for messages only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx_ir as ir

__all__ = [
    "DOMAIN",
    "IR_VERSION",
    "OPSET",
    "PLACE",
    "constant",
    "describe",
    "index_rows",
    "input_shapes",
    "is_output",
    "shape_of",
    "sole_consumer",
]

OPSET: Final = 21
"""The one opset of the intermediate representation: Q/DQ know int16 and int4 here."""

IR_VERSION: Final = 10
"""The ONNX IR version that goes with `OPSET`; runtimes of 2024 and later read it."""

DOMAIN: Final = "qconvert"
"""The domain of model-local functions (see `qconvert.functions`)."""

PLACE: Final = "qconvert.place"
"""Key of `metadata_props`: where a node stands in its source file."""


def constant(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The array behind `value` when it is known before the graph runs, else None.

    Initializers that are also graph inputs can be fed at run time and are not constants.
    """
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def is_output(value: ir.Value) -> bool:
    """Whether the user sees `value` as an output of the network."""
    return value.is_graph_output()


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`; None when several do, none does, or the user sees it."""
    consumers = {id(node): node for node in value.consumers()}
    if len(consumers) != 1 or len(list(value.uses())) != 1 or is_output(value):
        return None
    return next(iter(consumers.values()))


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The shape of `value`, all dimensions known.

    Raises:
        ValueError: If a dimension is unknown: the graph broke the convention above.
    """
    if value.shape is None or not all(isinstance(dim, int) for dim in value.shape):
        raise ValueError(f"the shape of '{value.name}' is not known: {value.shape}")
    return tuple(int(dim) for dim in value.shape.numpy())


def input_shapes(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """Name → shape of every network input (initializers listed as inputs left out)."""
    return {
        str(value.name): shape_of(value)
        for value in model.graph.inputs
        if value.const_value is None
    }


def index_rows(value: ir.Value | None) -> int | None:
    """How many rows a network input chooses from, when it holds indices and nothing else.

    Integer inputs of a model come as floats that a Cast makes integers of. Where these only choose
    rows of tables (Gather along the first of two axes), the input holds indices.

    Returns:
        The rows of the smallest table; None for any other value.
    """
    if value is None or not value.is_graph_input() or not value.uses():
        return None
    rows = [_rows_by(cast) for cast in value.consumers()]
    return min(rows) if all(rows) else None


def _rows_by(cast: ir.Node) -> int:
    """The rows that what `cast` makes chooses from; 0 when it does anything else."""
    made = cast.outputs[0]
    if cast.op_type != "Cast" or cast.domain or made.is_graph_output():
        return 0
    rows = []
    for node, index in made.uses():
        axis = node.attributes.get_int("axis", 0)
        table = node.inputs[0]
        shape = table.shape if table is not None else None
        fits = (node.op_type, node.domain, index, axis) == ("Gather", "", 1, 0)
        size = shape[0] if fits and shape is not None and len(shape) == 2 else 0
        rows.append(size if isinstance(size, int) else 0)
    return min(rows, default=0)


def describe(node: ir.Node) -> str:
    """How messages name a node: `layer 'conv1' (deploy.prototxt:12)`."""
    place = node.metadata_props.get(PLACE)
    return f"layer '{node.name}'" + (f" ({place})" if place else "")

"""Rewrites a model in an older opset, for parsers of older versions of TensorRT.

onnx's own converter loses functions and knows few ways down, so operators that changed are adapted
here; what then still does not match its schema in the wanted opset is refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from qconvert.backends.tensorrt.adapt_math import MATH
from qconvert.backends.tensorrt.adapt_shape import SHAPES
from qconvert.backends.tensorrt.lowering import drop_defaults, rank
from qconvert.errors import Problem
from qconvert.graph import OPSET, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qconvert.backends.tensorrt.lowering import Adapter

__all__ = ["ir_version", "lower", "spell_out"]

_IR_VERSIONS: Final = ((21, 10), (19, 9), (15, 8), (12, 7), (11, 6), (10, 5))
_ADAPTERS: Final[Mapping[str, tuple[int, Adapter]]] = {**MATH, **SHAPES}
"""Operator → (from which opset on its form is another, what gives it the older one)."""

_DEFAULTS: Final[Mapping[str, tuple[tuple[int, str, object], ...]]] = {
    "ArgMax": ((12, "select_last_index", 0),),
    "ArgMin": ((12, "select_last_index", 0),),
    "AveragePool": ((19, "dilations", 1),),
    "BatchNormalization": ((14, "training_mode", 0),),
    "Cast": ((19, "saturate", 1),),
    "DepthToSpace": ((11, "mode", "DCR"),),
    "DequantizeLinear": ((21, "block_size", 0),),
    "GRU": ((14, "layout", 0),),
    "LSTM": ((14, "layout", 0),),
    "LpPool": ((18, "dilations", 1), (18, "ceil_mode", 0)),
    "MaxPool": ((10, "dilations", 1),),
    "QuantizeLinear": (
        (21, "block_size", 0), (21, "output_dtype", 0), (19, "saturate", 1),
    ),
    "RNN": ((14, "layout", 0),),
    "Reshape": ((14, "allowzero", 0),),
    "ScatterElements": ((16, "reduction", "none"),),
    "ScatterND": ((16, "reduction", "none"),),
    "Shape": ((15, "start", 0),),
    "TopK": ((11, "largest", 1), (11, "sorted", 1)),
}  # fmt: skip
"""Operator → (from which opset on, attribute, what it means where it is absent)."""


def ir_version(opset: int) -> int:
    """The ONNX IR version of the time of an opset."""
    return next((version for since, version in _IR_VERSIONS if opset >= since), 4)


def spell_out(model: ir.Model, opset: int, is_known: Callable[[str], bool]) -> None:
    """Replace operators that a reader of `opset` lacks by ones it has, in our own opset."""
    lacking = [
        node
        for node in model.graph
        if not node.domain
        and node.op_type in MATH
        and (opset < MATH[node.op_type][0] or not is_known(node.op_type))
    ]
    for node in lacking:
        MATH[node.op_type][1](node, OPSET)
    if lacking:
        ShapeInferencePass()(model)


def lower(model: ir.Model, opset: int, is_known: Callable[[str], bool]) -> list[Problem]:
    """Rewrite `model` in place; functions must be expanded before.

    Args:
        model: In a newer opset; every node named.
        opset: The wanted one.
        is_known: Whether the reader knows an operator; one it does not is spelled out where that
            is possible.

    Returns:
        What has no form there; the model is then no use.
    """
    found = []
    for node in tuple(model.graph):
        reason = _adapt(node, opset, is_known)
        if reason is not None:
            found.append(_problem(node, opset, reason))
    model.graph.opset_imports[""] = opset
    if not found:
        ShapeInferencePass()(model)
    model.ir_version = ir_version(opset)
    for node in model.graph:
        reason = _why_not_schema(node, opset)
        if reason is not None:
            found.append(_problem(node, opset, reason))
    return list({problem.at + problem.what: problem for problem in found}.values())


def _problem(node: ir.Node, opset: int, reason: str) -> Problem:
    return Problem(f"operator {node.op_type} in opset {opset}", describe(node), reason)


def _adapt(node: ir.Node, opset: int, is_known: Callable[[str], bool]) -> str | None:
    """Give one node its older form."""
    if node.domain:
        return None
    dropped = [(name, d) for since, name, d in _DEFAULTS.get(node.op_type, ()) if opset < since]
    reason = drop_defaults(node, dropped)
    if reason is not None:
        return reason
    if opset < 11:
        _count_axes(node)
    since, adapter = _ADAPTERS.get(node.op_type, (0, None))
    spelled_out = node.op_type in MATH and not is_known(node.op_type)
    if adapter is not None and (opset < since or spelled_out):
        return adapter(node, opset)
    return None


def _count_axes(node: ir.Node) -> None:
    """Count axes from the front: older opsets know no negative ones."""
    ranks = rank(node.inputs[0] if node.inputs else None)
    attribute = node.attributes.get("axis")
    if attribute is not None and attribute.as_int() < 0 and ranks is not None:
        node.attributes["axis"] = ir.AttrInt64("axis", attribute.as_int() + ranks)


def _why_not_schema(node: ir.Node, opset: int) -> str | None:
    """Why `node` is no operator of `opset`; None when it is."""
    if node.domain:
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        return f"opset {opset} does not have it"
    unknown = [name for name in node.attributes if name not in schema.attributes]
    if unknown:
        return f"opset {opset} has no attribute {', '.join(unknown)}"
    if not schema.min_input <= len(node.inputs) <= schema.max_input:
        return f"opset {opset} has another number of inputs"
    if len(node.outputs) > schema.max_output:
        return f"opset {opset} has fewer outputs"
    return _why_not_types(node, schema)


def _why_not_types(node: ir.Node, schema: onnx.defs.OpSchema) -> str | None:
    """Why the inputs of `node` do not have types that a schema allows."""
    for index, value in enumerate(node.inputs):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        if value is None or value.dtype is None:
            continue
        text = f"tensor({value.dtype.name.lower()})"
        if formal.types and text not in formal.types:
            return f"its input {index} is {value.dtype.name.lower()}"
    return None

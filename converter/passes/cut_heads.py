"""End a network before its detection heads.

What decodes boxes and drops the overlapping ones runs better in a program than in some compilers.
What is left ends in the maps the heads would read:

    maps → [Yolo, Region, DetectionOutput, NonMaxSuppression ...] → detections       is cut off

Behind a head nothing is left either, and in front of it nothing that no other output needs but
constants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from onnx_ir.passes import common

from qconvert.errors import UnsupportedError
from qconvert.graph import DOMAIN, constant
from qconvert.passes.rewrite import known_shape

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.report import Report

__all__ = ["cut_heads"]

_HEADS: Final = ("Detections", "DetectionOutput", "Region", "Yolo")
"""How the names of functions that decode boxes end or begin; anchors alone (PriorBox) stay."""
_STANDARD: Final = frozenset({"NonMaxSuppression"})


def _is_head(node: ir.Node) -> bool:
    """Whether `node` decodes boxes or chooses among them."""
    if node.domain == DOMAIN:
        return any(name in node.op_type for name in _HEADS)
    return not node.domain and node.op_type in _STANDARD


def cut_heads(model: ir.Model, report: Report) -> ir.Model:
    """A copy of `model` that ends where its detection heads begin; `model` where it has none.

    Args:
        model: As a frontend gives it.
        report: Told of the new outputs.

    Raises:
        UnsupportedError: If a head reads no computed map.
    """
    copy = model.clone()
    graph = copy.graph
    beyond: set[ir.Value] = set()
    ends: dict[ir.Value, None] = {}
    for node in graph:
        if not _is_head(node) and not any(value in beyond for value in node.inputs):
            continue
        beyond.update(node.outputs)
        if _is_head(node):
            ends.update(dict.fromkeys(v for v in node.inputs if v is not None and _is_map(v)))
    if not beyond:
        report.warn("--cut-heads has no effect: the network has no detection heads")
        return model
    outputs = [value for value in graph.outputs if value not in beyond]
    outputs += [value for value in ends if value not in beyond and value not in outputs]
    if not outputs:
        raise UnsupportedError(
            "nothing is left of the network without its detection heads",
            why="they read the network's input itself",
            fix="leave --cut-heads out",
        )
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    common.RemoveUnusedNodesPass()(copy)
    common.RemoveUnusedFunctionsPass()(copy)  # type: ignore[no-untyped-call]  # as onnx-ir has it
    names = ", ".join(f"'{value.name}'" for value in outputs)
    report.warn(f"the network ends before its detection heads: its outputs are {names}")
    return copy


def _is_map(value: ir.Value) -> bool:
    """Whether `value` is computed from the input, and of known size."""
    computed = constant(value) is None and value.producer() is not None
    return computed and known_shape(value) is not None

"""The scale of every tensor, read from the pairs of a Q/DQ model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qconvert.backends.tensorrt.sameness import Groups
from qconvert.qdq import pair_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

__all__ = ["paired", "tensor_scales"]


def paired(model: ir.Model) -> dict[str, float]:
    """Tensor → scale of its symmetric 8-bit pair, whether anything reads that or not."""
    found: dict[str, float] = {}
    for node in model.graph:
        pair = pair_of(node.outputs[0]) if node.op_type == "DequantizeLinear" else None
        if pair is not None and pair.params.bits == 8 and pair.params.symmetric:
            found[str(pair.source.name)] = float(pair.params.scale)
    return found


def tensor_scales(model: ir.Model, known: Mapping[str, float]) -> dict[str, float]:
    """Tensor of a float model → scale, for all that `known` tells something about.

    In graph order. A tensor with a pair keeps its pair's scale.
    """
    spread = Groups.of(model.graph).spread(known)
    return {name: known.get(name, scale) for name, scale in spread.items()}

"""Layers that stay in float, for `trtexec --layerPrecisions` beside a cache.

With a cache TensorRT chooses the precision of each layer by speed, from all that have scales. What
the Q/DQ model keeps in float has to be said layer by layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qconvert.backends.tensorrt.placement import POOLS, reads_integers
from qconvert.backends.tensorrt.residual import is_swish
from qconvert.backends.tensorrt.sameness import is_activation, same_numbers, source_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

__all__ = ["FLOAT", "float_layers", "text"]

FLOAT: Final = "fp16"
"""What TensorRT computes in where it does not in int8; trtexec needs `--fp16` for it."""

_MOVES: Final = frozenset(
    {"Concat", "Expand", "Gather", "Pad", "Resize", "Slice", "Split", "Tile", "Upsample"}
)
_FUSED: Final = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid"})


def float_layers(model: ir.Model) -> list[str]:
    """Names of the layers of a Q/DQ model that compute in float, in order.

    Operators that only move numbers take the precision of their surroundings, and activation
    functions that of the layer they are fused to.
    """
    integer = {node for node in model.graph if reads_integers(node)}
    inside = {node.outputs[0] for node in integer}
    names = []
    for node in model.graph:
        if node in integer or node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        if not node.outputs or not is_activation(node.outputs[0]):
            continue
        values = [source_of(value) for value in node.inputs]
        rides = node.op_type in _FUSED or is_swish(node)
        if (rides or same_numbers(node)) and any(value in inside for value in values):
            inside.add(node.outputs[0])
            continue
        quantized = any(source_of(value) is not value for value in node.inputs)
        if same_numbers(node) or node.op_type in _MOVES:
            if any(value in inside for value in values):
                inside.add(node.outputs[0])
            continue
        if quantized and (node.op_type in POOLS or node.op_type in {"Add", "Mul"}):
            inside.add(node.outputs[0])
            continue
        names.append(str(node.name))
    return names


def text(layers: Iterable[str]) -> str:
    """The file: one `name:precision` per line, the form of one entry of `--layerPrecisions`."""
    return "".join(f"{name}:{FLOAT}\n" for name in layers if len(name.splitlines()) == 1)

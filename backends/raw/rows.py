"""The rows of the manifest: every layer, and how exact it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qconvert.bundle import LayerRow
from qconvert.integer.document import describe_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.integer.program import Layer, Program

__all__ = ["layer_rows"]


def layer_rows(program: Program, details: Mapping[str, Mapping[str, Any]]) -> list[LayerRow]:
    """One row per layer, in the order in which they run.

    Args:
        program: The program.
        details: Layer id → what the report says of it.
    """
    return [_row(program, layer, details.get(layer.id, {})) for layer in program.layers]


def _row(program: Program, layer: Layer, details: Mapping[str, Any]) -> LayerRow:
    """One layer; its width is that of its weight, or of its output where it has none."""
    weight = program.parameter(layer, "weight")
    source = program.tensors[layer.inputs[0]]
    output = program.tensors[layer.outputs[0]]
    bits = 32 if layer.op == "float" else (weight or output).bits
    return LayerRow(
        layer.name,
        layer.op,
        bits,
        None if weight is None else list(weight.scale),
        source.scale[0] if source.scale and layer.op != "float" else None,
        dict(details),
        describe_layer(layer),
    )

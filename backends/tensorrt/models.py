"""The two models of a bundle, from the two of a job: the same network, named alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from qconvert.backends.tensorrt.lowering import add_constant
from qconvert.backends.tensorrt.names import clean
from qconvert.backends.tensorrt.network import inline, rewrite
from qconvert.backends.tensorrt.placement import reads_integers
from qconvert.backends.tensorrt.sameness import source_of
from qconvert.backends.tensorrt.weights import TOP, Held, hold, settled
from qconvert.bundle import LayerRow
from qconvert.graph import constant, shape_of
from qconvert.qdq import codes_of, pair_of
from qconvert.report import Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.qdq import Codes
    from qconvert.quant import F32

__all__ = [
    "Layer",
    "float_weights",
    "layers",
    "prepared",
    "rows",
    "spell_out_weights",
    "weight_of",
]

_COMPUTE: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One layer with a stored weight that runs on integers.

    Attributes:
        node: In the Q/DQ model.
        codes: Its weight.
        axis: Axis of the weight's output channels.
    """

    node: ir.Node
    codes: Codes
    axis: int


def prepared(model: ir.Model, report: Report | None = None) -> tuple[ir.Model, dict[str, str]]:
    """A copy of `model` in the form that is written, in our own opset.

    Returns:
        The copy, and the new names of network inputs and outputs that got one.
    """
    copy = model.clone()
    inline(copy)
    rewrite(copy)
    ends = clean(copy, report or Report())
    copy.producer_name, copy.producer_version = "qconvert", None
    RemoveUnusedOpsetsPass()(copy)
    return copy, ends


def layers(model: ir.Model) -> list[Layer]:
    """The integer layers of a Q/DQ model whose weight is stored as codes."""
    found = []
    for node in model.graph:
        codes = codes_of(node.inputs[1]) if reads_integers(node) else None
        if codes is not None:
            found.append(Layer(node, codes, _axis(node)))
    return found


def _axis(node: ir.Node) -> int:
    """Which axis of a layer's weight counts its outputs."""
    if node.op_type == "MatMul":
        return -1 if node.inputs[1] is None else len(shape_of(node.inputs[1])) - 1
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return 1 if node.op_type == "ConvTranspose" else 0


def float_weights(plain: ir.Model, quantized: ir.Model, report: Report) -> dict[str, int]:
    """Give the float model the weights from which TensorRT derives the scales of the codes.

    Args:
        plain: The float model, changed in place.
        quantized: The Q/DQ model; its weight scales move, by a unit in the last place, to where
            TensorRT's own arithmetic ends up.
        report: Told which layers' scales could not be kept.

    Returns:
        Layer → how many of its channels have another scale than in the Q/DQ model.
    """
    _settle(quantized)
    nodes = {str(node.name): node for node in plain.graph}
    changed: dict[str, int] = {}
    done: dict[tuple[str, str], ir.Value] = {}
    for layer in layers(quantized):
        node = nodes[str(layer.node.name)]
        before = node.inputs[1]
        weight = constant(before)
        if before is None or weight is None:
            continue
        stored = layer.codes.node.inputs[0]
        key = str(before.name), str(stored.name if stored is not None else "")
        held = _held(weight, layer)
        if held.changed.any():
            changed[str(node.name)] = int(held.changed.sum())
        if key not in done:
            done[key] = _stored(node, before, held)
        node.replace_input_with(1, done[key])
    for value in tuple(plain.graph.initializers.values()):
        if not value.uses() and not value.is_graph_output():
            del plain.graph.initializers[str(value.name)]
    if changed:
        told = ", ".join(f"'{name}' ({count})" for name, count in list(changed.items())[:6])
        report.warn(
            f"{len(changed)} layers have channels whose weight scale is wider than their weights; "
            "beside the calibration cache, from which TensorRT derives its own, they have "
            f"max|w|/{TOP}: {told}{', ...' if len(changed) > 6 else ''}"
        )
    return changed


def _settle(quantized: ir.Model) -> None:
    """Move the weight scales of a Q/DQ model to where max|w| / 127 gives them back."""
    for layer in layers(quantized):
        scale = layer.codes.params.scale
        moved = settled(scale)
        if not np.array_equal(moved, scale):
            shape = constant(layer.codes.node.inputs[1])
            assert shape is not None
            fresh = add_constant(layer.codes.node, "scale", moved.reshape(shape.shape))
            layer.codes.node.replace_input_with(1, fresh)


def weight_of(node: ir.Node) -> tuple[F32, F32, int] | None:
    """The weight of an integer layer, stored as codes or as floats behind a QuantizeLinear.

    Returns:
        What its codes stand for, [channels] scales, and the axis of its output channels; None
        when it is computed.
    """
    codes = codes_of(node.inputs[1])
    if codes is not None:
        real, scale = codes.real(), codes.params.scale
    else:
        maker = node.inputs[1].producer() if node.inputs[1] is not None else None
        source = source_of(node.inputs[1])
        stored = constant(source)
        found = constant(maker.inputs[1]) if maker is not None and len(maker.inputs) > 1 else None
        if stored is None or found is None:
            return None
        real, scale = np.asarray(stored, np.float32), np.asarray(found, np.float32)
    axis = _axis(node)
    return real, np.broadcast_to(scale.reshape(-1), (real.shape[axis],)), axis


def _held(weight: Any, layer: Layer) -> Held:  # noqa: ANN401 - a numpy array of any type
    params = layer.codes.params
    codes = np.clip(layer.codes.codes.astype(np.int32), -TOP, TOP)
    return hold(np.asarray(weight, np.float32), codes, params.scale, layer.axis)


def _stored(node: ir.Node, before: ir.Value, held: Held) -> ir.Value:
    """The new weight, under the old one's name where it has no other reader."""
    if len(list(before.uses())) == 1 and not before.is_graph_output():
        before.const_value = ir.tensor(held.weight, name=before.name)
        return before
    return add_constant(node, "weight", held.weight)


def spell_out_weights(model: ir.Model) -> None:
    """Store weights as floats with a QuantizeLinear: the form that every parser reads.

    The floats are what the codes stand for, so rounding gives the codes again. Pairs that nobody
    reads, which only tell a scale, go.
    """
    for node in tuple(model.graph):
        codes = codes_of(node.outputs[0]) if node.op_type == "DequantizeLinear" else None
        if codes is None:
            continue
        stored = node.inputs[0]
        assert stored is not None
        name = str(stored.name).removesuffix("/codes")
        real = add_constant(node, "weight", codes.real())
        made = ir.val(f"{name}/quantized", stored.dtype, stored.shape)
        attributes = {} if codes.params.axis is None else {"axis": codes.params.axis}
        quantize = ir.node(
            "QuantizeLinear", [real, *node.inputs[1:]], attributes, outputs=[made],
            name=f"{name}/quantize",
        )  # fmt: skip
        model.graph.insert_before(node, quantize)
        node.replace_input_with(0, made)
    RemoveUnusedNodesPass()(model)


def rows(model: ir.Model, changed: Mapping[str, int]) -> list[LayerRow]:
    """One row per layer of a Q/DQ or float model."""
    known = {id(layer.node): layer for layer in layers(model)}
    return [
        _row(node, known.get(id(node)), changed)
        for node in model.graph
        if node.op_type in _COMPUTE and not node.domain
    ]


def _row(node: ir.Node, layer: Layer | None, changed: Mapping[str, int]) -> LayerRow:
    pair = pair_of(node.inputs[0])
    if pair is None or not reads_integers(node):
        return LayerRow(str(node.name), node.op_type, 32)
    scales = None if layer is None else [float(s) for s in layer.codes.params.scale.reshape(-1)]
    count = changed.get(str(node.name), 0)
    details: dict[str, Any] = {"cache_channels_rescaled": count} if count else {}
    return LayerRow(str(node.name), node.op_type, 8, scales, float(pair.params.scale), details)

"""Where Q/DQ pairs stand for TensorRT.

1. In front of the input of every layer that runs on integers; weights per output channel.
2. None at network outputs, none between a layer and its activation function: the next reader's
   quantizer sets the scale of what the fused kernel puts out.
3. Of the two inputs of a residual Add only the skip is quantized (see `residual`).
4. Other Adds and Muls, and average pooling, where what they read comes from integers.
5. One pair per tensor, for all readers; one scale for what MaxPool, Reshape, Concat and the like
   pass on (see `sameness`).

Every other float tensor is observed: a calibration cache has a row for it.

Reference: NVIDIA TensorRT documentation, "Working with quantized types"; modelopt 0.47.0
onnx/quantization/int8.py, ort_utils.py, graph_utils.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from qconvert.backends.tensorrt.residual import fused_input, is_swish
from qconvert.backends.tensorrt.sameness import (
    BOUNDS,
    Groups,
    is_activation,
    same_numbers,
    source_of,
)
from qconvert.backends.tensorrt.shapes import why_no_kernel
from qconvert.graph import is_output, shape_of
from qconvert.plan import Placement
from qconvert.qdq import codes_of, pair_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import onnx_ir as ir

    from qconvert.plan import Plan, PlannedLayer
    from qconvert.report import Report

__all__ = ["POOLS", "Arrangement", "neighbours", "reads_integers"]

POOLS: Final = frozenset({"AveragePool", "GlobalAveragePool"})
_COMBINE: Final = frozenset({"Add", "Mul"})
_ACTIVATIONS: Final = BOUNDS | {"LeakyRelu"}
"""Activation functions that integer kernels of TensorRT end with."""


class Arrangement(Placement):
    """TensorRT's rules of placement."""

    @override
    def settle(self, model: ir.Model, plan: Plan) -> Plan:
        """See `Placement.settle`."""
        nodes = {str(node.name): node for node in model.graph}
        kept = dict(plan.kept_float)
        layers = []
        for layer in plan.layers:
            reason = _why_no_kernel(nodes[layer.node], layer)
            if reason is None:
                layers.append(layer)
            else:
                kept[layer.node] = reason
        readers = list(_layer_readers(layers, nodes))
        integer = {nodes[layer.node] for layer in layers}
        allowed = [node for node in model.graph if str(node.name) not in kept]
        readers += neighbours(allowed, integer)
        uses: dict[str, set[tuple[str, int]]] = {}
        for node, index in readers:
            value = node.inputs[index]
            if value is not None and str(value.name) in plan.activations:
                uses.setdefault(str(value.name), set()).add((str(node.name), index))
        return _with_uses(model, replace(plan, layers=tuple(layers), kept_float=kept), uses)

    @override
    def arrange(self, model: ir.Model, report: Report) -> None:
        """See `Placement.arrange`."""
        graph = model.graph
        integer = {node for node in graph if reads_integers(node)}
        gone: dict[str, int] = {}
        for node in tuple(graph):
            pair = pair_of(node.outputs[0]) if node.op_type == "DequantizeLinear" else None
            if pair is None:
                continue
            narrow = pair.params.bits != 8 or not pair.params.symmetric
            for use in tuple(pair.output.uses()):
                why = "width" if narrow else _why_not(use.node, use.idx, integer)
                if why is not None:
                    use.node.replace_input_with(use.idx, pair.source)
                    gone[why] = gone.get(why, 0) + 1
            if is_output(pair.output) and not is_output(pair.source) and pair.source.producer():
                name = pair.output.name
                pair.output.replace_all_uses_with(pair.source, replace_graph_outputs=True)
                pair.output.name, pair.source.name = pair.source.name, name
                gone["output"] = gone.get("output", 0) + 1
        if gone:
            told = ", ".join(f"{_REASONS[why]} ({count})" for why, count in sorted(gone.items()))
            report.warn(f"pairs that TensorRT has no place for are left out: {told}")


def _why_no_kernel(node: ir.Node, layer: PlannedLayer) -> str | None:
    """Why a planned layer stays float, for want of a kernel."""
    weight = node.inputs[1]
    if layer.weight is None or weight is None:
        return None
    return why_no_kernel(node, shape_of(weight))


_REASONS: Final = {
    "bound": "between a layer and its activation function",
    "float": "in front of operators that compute in float",
    "output": "at network outputs",
    "residual": "on the convolution's side of a residual Add",
    "width": "of other than symmetric 8-bit codes",
}


def _layer_readers(
    layers: Iterable[PlannedLayer], nodes: dict[str, ir.Node]
) -> Iterable[tuple[ir.Node, int]]:
    """The inputs of layers that are quantized."""
    for layer in layers:
        yield nodes[layer.node], 0
        if layer.weight is None:
            yield nodes[layer.node], 1


def neighbours(nodes: Iterable[ir.Node], integer: Collection[ir.Node]) -> list[tuple[ir.Node, int]]:
    """Inputs of Add, Mul and pooling that are quantized because integers come in.

    Args:
        nodes: In topological order; those that must stay float left out.
        integer: The layers that run on integers.

    Returns:
        Node and input index.
    """
    inside: set[ir.Value] = {layer.outputs[0] for layer in integer}
    found: list[tuple[ir.Node, int]] = []
    for node in nodes:
        if node.domain or node in integer:
            continue
        values = [source_of(value) for value in node.inputs]
        if node.op_type in POOLS and values[0] in inside:
            found.append((node, 0))
            inside.add(node.outputs[0])
        elif is_swish(node):
            if any(value in inside for value in values):
                inside.add(node.outputs[0])
        elif node.op_type in _COMBINE:
            indices = _combined(node, integer, inside)
            found += [(node, index) for index in indices]
            if indices:
                inside.add(node.outputs[0])
        elif _goes_on(node) and all(
            value in inside for value in (values if node.op_type == "Concat" else values[:1])
        ):
            inside.add(node.outputs[0])
    return found


def _goes_on(node: ir.Node) -> bool:
    """Whether integers that come in may come out again."""
    return node.op_type in _ACTIVATIONS or node.op_type == "Concat" or same_numbers(node)


def _combined(
    node: ir.Node, integer: Collection[ir.Node], inside: Collection[ir.Value]
) -> list[int]:
    """The inputs of an Add or Mul of two tensors that are quantized."""
    values = [source_of(value) for value in node.inputs]
    if not all(is_activation(value) for value in values):
        return []
    if node.op_type == "Add":
        fused = fused_input(node, integer)
        if fused is not None:
            return [1 - fused]
    return [0, 1] if all(value in inside for value in values) else []


def _with_uses(model: ir.Model, plan: Plan, uses: dict[str, set[tuple[str, int]]]) -> Plan:
    """`plan` with pairs for `uses` alone, and the scales that a cache needs besides."""
    observed, ties = {}, []
    groups = Groups.of(model.graph)
    for group in groups:
        names = [str(value.name) for value in group if str(value.name) in plan.activations]
        placed = [name for name in names if name in uses]
        if not placed and groups.bounded(group) is None:
            observed.update({name: plan.activations[name] for name in names})
        shared = placed or [name for name in names if name in observed]
        if len(shared) > 1:
            ties.append(tuple(shared))
    return replace(
        plan,
        activations={name: spec for name, spec in plan.activations.items() if name in uses},
        observed=observed,
        ties=tuple(ties),
        uses={name: frozenset(readers) for name, readers in uses.items()},
        every_reader=False,
    )


def reads_integers(node: ir.Node) -> bool:
    """Whether a layer of a Q/DQ model has integers on both sides."""
    if node.domain or node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
        return False
    first, second = node.inputs[0], node.inputs[1]
    if source_of(first) is first:
        return False
    return codes_of(second) is not None or source_of(second) is not second


def _why_not(node: ir.Node, index: int, integer: Collection[ir.Node]) -> str | None:
    """Why a pair has no place in front of input `index` of `node`; None when it has."""
    if node.op_type in BOUNDS or node.op_type == "BatchNormalization":
        value = source_of(node.inputs[0])
        maker = value.producer() if value is not None else None
        return "bound" if maker in integer else "float"
    if node.op_type == "Add" and fused_input(node, integer) == index:
        return "residual"
    quantizes = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Concat"} | _COMBINE | POOLS
    if node.op_type in quantizes or same_numbers(node):
        return None
    return None if node.op_type in {"QuantizeLinear", "DequantizeLinear"} else "float"

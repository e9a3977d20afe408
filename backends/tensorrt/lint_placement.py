"""Where Q/DQ pairs make TensorRT slow or imprecise; see `placement` for the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.backends.tensorrt.lint_numbers import KINDS
from qconvert.backends.tensorrt.placement import POOLS, reads_integers
from qconvert.backends.tensorrt.residual import fused_input
from qconvert.backends.tensorrt.sameness import BOUNDS, Groups, same_numbers, source_of
from qconvert.backends.tensorrt.shapes import why_no_kernel
from qconvert.graph import constant
from qconvert.target import Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import onnx_ir as ir

__all__ = ["placement"]

_LAYERS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_QUANTIZED: Final = _LAYERS | POOLS | {"Add", "Concat", "Mul"}


def placement(graph: ir.Graph) -> Iterator[Finding]:
    """Everything about where pairs stand in `graph`."""
    integer = {node for node in graph if reads_integers(node)}
    for node in graph:
        if node.domain:
            continue
        if node.op_type in _LAYERS:
            yield from _layer(node, integer)
        elif node.op_type == "Add" and (index := fused_input(node, integer)) is not None:
            yield from _residual(node, index)
        elif node.op_type == "DequantizeLinear":
            yield from _pair(node, integer)
    yield from _tensors(graph)


def _layer(node: ir.Node, integer: Collection[ir.Node]) -> Iterator[Finding]:
    """A layer is quantized on both sides, per output channel, and has a float bias."""
    at = f"{node.op_type} '{node.name}'"
    sides = [_quantized(value) for value in node.inputs[:2]]
    if any(sides) and not all(sides):
        which = "input" if sides[1] else "weight"
        yield Finding("half", at, f"its {which} is not quantized: it runs in float")
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and constant(bias) is None:
        maker = bias.producer()
        made = "computed" if maker is None or maker.op_type not in KINDS else "quantized"
        yield Finding("bias", at, f"its bias is {made}: TensorRT wants float numbers")
    if node not in integer:
        return
    if (found := _weight_axis(node)) is not None:
        yield Finding("weight-axis", at, found, refused=True)
    if _has_stored_weight(node) and (reason := _why_no_kernel(node)) is not None:
        yield Finding("kernel", at, reason)


def _quantized(value: ir.Value | None) -> bool:
    maker = value.producer() if value is not None else None
    while maker is not None and same_numbers(maker):
        value = maker.inputs[0]
        maker = value.producer() if value is not None else None
    return maker is not None and maker.op_type == "DequantizeLinear"


def _weight_shape(node: ir.Node) -> tuple[int, ...] | None:
    """The shape of a layer's stored weight; None when it is computed."""
    value = node.inputs[1]
    maker = value.producer() if value is not None else None
    while maker is not None and maker.op_type in KINDS:
        value = maker.inputs[0]
        maker = value.producer() if value is not None else None
    array = constant(value)
    return None if array is None else array.shape


def _has_stored_weight(node: ir.Node) -> bool:
    return _weight_shape(node) is not None


def _why_no_kernel(node: ir.Node) -> str | None:
    shape = _weight_shape(node)
    assert shape is not None
    return why_no_kernel(node, shape)


def _weight_axis(node: ir.Node) -> str | None:
    """What is wrong with the axis of a weight's scales."""
    value, shape = node.inputs[1], _weight_shape(node)
    maker = value.producer() if value is not None else None
    scale = constant(maker.inputs[1]) if maker is not None and len(maker.inputs) > 1 else None
    if maker is None or shape is None or scale is None or scale.size <= 1:
        return None
    axis = maker.attributes.get_int("axis", 1) % len(shape)
    if node.op_type == "Gemm":
        wanted = 0 if node.attributes.get_int("transB", 0) else 1
    else:
        wanted = {"Conv": 0, "ConvTranspose": 1}.get(node.op_type, len(shape) - 1)
    if axis == wanted:
        return None
    return f"its weight has scales along axis {axis}; output channels are axis {wanted}"


def _residual(node: ir.Node, index: int) -> Iterator[Finding]:
    at = f"Add '{node.name}'"
    values = node.inputs
    if _quantized(values[index]):
        yield Finding(
            "residual",
            at,
            "both inputs are quantized: the pair on the convolution's side keeps TensorRT from "
            "adding in the convolution's kernel",
        )
    elif not _quantized(values[1 - index]):
        yield Finding("residual", at, "its skip input is not quantized: the kernel puts out float")


def _pair(node: ir.Node, integer: Collection[ir.Node]) -> Iterator[Finding]:
    """No pair at outputs, between a layer and its activation, or in front of float operators."""
    output = node.outputs[0]
    source = source_of(output)
    if source is output or source is None or constant(source) is not None:
        return
    at = f"pair at '{source.name}'"
    if output.is_graph_output():
        yield Finding("output", at, "a network output is quantized: it need not be")
    readers = list(output.consumers())
    maker = source.producer()
    for reader in readers:
        behind = reader.op_type in BOUNDS | {"BatchNormalization"}
        if behind and maker is not None and maker in integer:
            yield Finding(
                "fusion", at, f"it stands between {maker.op_type} and its {reader.op_type}"
            )
    odd = {
        reader.op_type
        for reader in readers
        if reader.op_type not in _QUANTIZED | BOUNDS | KINDS | {"BatchNormalization"}
        and not same_numbers(reader)
    }
    if odd:
        yield Finding("float", at, f"{', '.join(sorted(odd))} computes in float all the same")


def _tensors(graph: ir.Graph) -> Iterator[Finding]:
    """One pair per tensor, one scale for tensors that hold the same numbers."""
    pairs: dict[ir.Value, list[tuple[str, bytes]]] = {}
    for node in graph:
        if node.op_type != "QuantizeLinear" or node.domain or constant(node.inputs[0]) is not None:
            continue
        scale = constant(node.inputs[1])
        source = source_of(node.inputs[0])
        if source is not None and scale is not None and node.outputs[0].uses():
            entry = str(node.name), np.asarray(scale, np.float32).tobytes()
            pairs.setdefault(source, []).append(entry)
    for source, found in pairs.items():
        if len(found) > 1:
            names = ", ".join(f"'{name}'" for name, _ in found)
            yield Finding("shared", f"pair at '{source.name}'", f"it has {len(found)}: {names}")
    for group in Groups.of(graph):
        scales = {scale for value in group for _, scale in pairs.get(value, ())}
        if len(scales) > 1:
            names = ", ".join(f"'{value.name}'" for value in group if value in pairs)
            yield Finding(
                "scale-shared",
                f"pairs at {names}",
                f"tensors of the same numbers have {len(scales)} scales: TensorRT converts between "
                "them",
            )

"""What TensorRT's ONNX parser refuses in QuantizeLinear and DequantizeLinear nodes.

Reference: onnx/onnx-tensorrt 8.6 builtin_op_importers.cpp and 10.1 onnxOpImporters.cpp,
`QuantDequantLinearHelper`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.graph import constant
from qconvert.target import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

__all__ = ["KINDS", "numbers"]

KINDS: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})


def numbers(graph: ir.Graph) -> Iterator[Finding]:
    """Everything the parser refuses about the nodes of `graph`, one by one."""
    for node in graph:
        if node.op_type not in KINDS:
            continue
        if node.domain:
            yield _finding(node, "domain", f"it is of the domain {node.domain!r}, not ONNX's own")
            continue
        for rule, what in (
            *_scale(node),
            *_zero_point(node),
            *_channels(node),
            *_partner(node),
        ):
            yield _finding(node, rule, what)


def _finding(node: ir.Node, rule: str, what: str) -> Finding:
    return Finding(rule, f"{node.op_type} '{node.name}'", what, refused=True)


def _given(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _scale(node: ir.Node) -> Iterator[tuple[str, str]]:
    scale = constant(_given(node, 1))
    if scale is None:
        yield "scale", "its scale is computed at run time"
        return
    real = np.asarray(scale, dtype=np.float64)
    if not real.size:
        yield "scale", "its scale is empty"
    elif not (np.isfinite(real).all() and (real > 0).all()):
        yield "scale", "a scale is not a positive number"


def _zero_point(node: ir.Node) -> Iterator[tuple[str, str]]:
    value, zero = _given(node, 2), constant(_given(node, 2))
    scale = constant(_given(node, 1))
    if value is None:
        yield "zero-point", "it has no zero point: the parser wants one, and takes it for uint8"
        return
    if value.dtype is not None and value.dtype.name != "INT8":
        yield "type", f"its codes are {value.dtype.name.lower()}, not int8"
    if zero is None:
        yield "zero-point", "its zero point is computed at run time"
        return
    if np.asarray(zero, dtype=np.float64).any():
        yield "zero-point", "its zero point is not 0"
    if scale is not None and scale.size != zero.size:
        yield "zero-point", f"it has {scale.size} scales and {zero.size} zero points"


def _channels(node: ir.Node) -> Iterator[tuple[str, str]]:
    """Scales per channel are for constants, along an axis of as many channels."""
    scale = constant(_given(node, 1))
    if node.attributes.get_int("block_size", 0):
        yield "type", "it has scales for blocks, not for channels"
    if scale is None or scale.size <= 1:
        return
    data = _data(node)
    if data is None:
        yield "per-channel", "an activation has scales per channel"
        return
    axis = node.attributes.get_int("axis", 1)
    if not -len(data) <= axis < len(data) or data[axis] != scale.size:
        yield "per-channel", f"it has {scale.size} scales along axis {axis} of {list(data)}"


def _data(node: ir.Node) -> tuple[int, ...] | None:
    """The shape of the constant that a node is about; None when it is about an activation."""
    value = node.inputs[0]
    maker = value.producer() if value is not None else None
    if maker is not None and maker.op_type == "QuantizeLinear":
        value = maker.inputs[0]
    array = constant(value)
    return None if array is None else array.shape


def _partner(node: ir.Node) -> Iterator[tuple[str, str]]:
    """Codes are made by a QuantizeLinear and read by DequantizeLinears of the same scale."""
    if node.op_type == "QuantizeLinear":
        others = {use.op_type for use in node.outputs[0].consumers()} - {"DequantizeLinear"}
        if others:
            yield "pair", f"its codes are read by {', '.join(sorted(others))}"
        if node.outputs[0].is_graph_output():
            yield "pair", "its codes are a network output"
        return
    codes = node.inputs[0]
    maker = codes.producer() if codes is not None else None
    if constant(codes) is not None:
        return
    if maker is None or maker.op_type != "QuantizeLinear":
        made = "the network's input" if maker is None else maker.op_type
        yield "pair", f"its codes come from {made}, not from a QuantizeLinear"
        return
    first, second = constant(_given(maker, 1)), constant(_given(node, 1))
    if (
        first is not None
        and second is not None
        and not np.array_equal(first.reshape(-1), second.reshape(-1), equal_nan=True)
    ):
        yield "pair", "it has another scale than the QuantizeLinear before it"

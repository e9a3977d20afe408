"""Move DequantizeLinear in front of operators that only choose or move codes.

    dq(op(q)) = op(dq(q))     for MaxPool, Reshape, Transpose, Slice, Concat, ...

because x → s (x - z) grows with x. Models in onnxruntime's QOperator format pool and reshape codes;
afterwards every operator but Q and DQ is a float one, as everywhere else here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir
from typing_extensions import override

from qconvert.graph import constant, is_output
from qconvert.passes.rewrite import NodePass, absorb

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LiftCodes"]

_MOVING: Final = frozenset(
    {
        "Concat", "DepthToSpace", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice",
        "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip

_CODES: Final = frozenset({ir.DataType.INT8, ir.DataType.UINT8})


def _is_codes(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in _CODES and constant(value) is None


def _sources(node: ir.Node) -> Sequence[ir.Value | None]:
    """The inputs of `node` that hold codes."""
    return node.inputs if node.op_type == "Concat" else node.inputs[:1]


def _same_parameters(nodes: Sequence[ir.Node]) -> bool:
    """Whether DequantizeLinear nodes have one constant scale and zero point for the tensor."""
    seen = set()
    for node in nodes:
        arrays = [constant(value) for value in node.inputs[1:]]
        if any(array is None or array.size != 1 for array in arrays):
            return False
        seen.add(tuple(array.item() for array in arrays if array is not None))
    return len(seen) == 1


class LiftCodes(NodePass):
    """Let operators between QuantizeLinear and DequantizeLinear work on real numbers."""

    step = "lift_codes"

    @override
    def matches(self, node: ir.Node) -> bool:
        if node.op_type not in _MOVING or node.domain or len(node.outputs) != 1:
            return False
        return all(_is_codes(value) for value in _sources(node)) and _is_codes(node.outputs[0])

    @override
    def why_not(self, node: ir.Node) -> str | None:
        readers = list(node.outputs[0].consumers())
        if is_output(node.outputs[0]) or not readers:
            return "its codes are an output of the network"
        if any(reader.op_type != "DequantizeLinear" for reader in readers):
            return "something else than DequantizeLinear reads its codes"
        return None if _same_parameters(readers) else "its codes are read on different grids"

    @override
    def rewrite(self, node: ir.Node) -> None:
        graph, output = node.graph, node.outputs[0]
        assert graph is not None
        readers = list(output.consumers())
        for index, value in enumerate(_sources(node)):
            assert value is not None
            real = ir.val(f"{node.name}/real_{index}", dtype=ir.DataType.FLOAT, shape=value.shape)
            inputs = [value, *readers[0].inputs[1:]]
            name = f"{node.name}/dequantize_{index}"
            graph.insert_before(
                node, ir.node("DequantizeLinear", inputs, outputs=[real], name=name)
            )
            node.replace_input_with(index, real)
        # A new type: a copy of a model shares its types with the original.
        output.type = ir.TensorType(ir.DataType.FLOAT)
        for reader in readers:
            absorb(reader, output)

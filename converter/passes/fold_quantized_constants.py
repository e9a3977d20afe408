"""Bring quantized constants into the one form that means "weight": codes → DequantizeLinear.

    float → QuantizeLinear → DequantizeLinear    the codes are rounded now, as they would be then
    codes → DequantizeLinear → Transpose         the codes are transposed
    int32 → DequantizeLinear → bias              a bias is a float here; s (q - z) is computed now

What is dequantized and is no weight of a layer (a bias, an operand of an Add) becomes the float
constant it stands for: it was rounded when the model was made, and stays so. Blocked and 4-bit
weights come back as floats and as 8-bit storage; neither changes a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
from typing_extensions import override

from qconvert.graph import constant, is_output
from qconvert.passes.linear import LINEAR
from qconvert.passes.rewrite import NodePass, add_initializer, only_reader
from qconvert.qdq import codes_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.quant import F32

__all__ = ["FoldQuantizedConstants"]

_RANGE: Final = {
    ir.DataType.INT4: (-8, 7, np.int8),
    ir.DataType.UINT4: (0, 15, np.uint8),
    ir.DataType.INT8: (-128, 127, np.int8),
    ir.DataType.UINT8: (0, 255, np.uint8),
    ir.DataType.INT16: (-(2**15), 2**15 - 1, np.int16),
    ir.DataType.UINT16: (0, 2**16 - 1, np.uint16),
}


def _spread(node: ir.Node, index: int, data: npt.NDArray[np.generic]) -> F32 | None:
    """A scale or zero point of `node`, shaped to go with `data`; None when it is computed."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return np.zeros((), np.float32)
    array = constant(value)
    if array is None:
        return None
    axis = node.attributes.get_int("axis", 1)
    block = node.attributes.get_int("block_size", 0)
    if block:
        wide = np.repeat(array.astype(np.float32), block, axis=axis)
        return np.take(wide, np.arange(data.shape[axis]), axis=axis)
    if array.ndim == 0 or array.size == 1:
        return array.astype(np.float32).reshape(())
    shape = [1] * data.ndim
    shape[axis] = -1
    return array.astype(np.float32).reshape(shape)


def _parameters(node: ir.Node) -> tuple[npt.NDArray[np.generic], F32, F32] | None:
    """Data, scale and zero point of a Q or DQ node on constants."""
    data = constant(node.inputs[0])
    if data is None:
        return None
    scale, zero = _spread(node, 1, data), _spread(node, 2, data)
    return None if scale is None or zero is None else (data, scale, zero)


def _is_weight(value: ir.Value) -> bool:
    """Whether every reader of `value` takes it as the weight of a layer."""
    return bool(value.uses()) and all(
        use.node.op_type in LINEAR | {"MatMul"} and use.idx == 1 for use in value.uses()
    )


class FoldQuantizedConstants(NodePass):
    """Leave of quantized constants only weights, as integer codes and a DequantizeLinear."""

    step = "fold_quantized_constants"

    @override
    def matches(self, node: ir.Node) -> bool:
        if node.domain or is_output(node.outputs[0]):
            return False
        if node.op_type == "QuantizeLinear":
            return constant(node.inputs[0]) is not None
        if node.op_type == "DequantizeLinear":
            return constant(node.inputs[0]) is not None and not self._is_canonical(node)
        return node.op_type == "Transpose" and codes_of(node.inputs[0]) is not None

    def _is_canonical(self, node: ir.Node) -> bool:
        """Whether a DequantizeLinear of constants may stay as it is."""
        codes = node.inputs[0]
        assert codes is not None
        output = node.outputs[0]
        moved = [reader.op_type for reader in output.consumers()] == ["Transpose"]
        stored = codes.dtype not in {ir.DataType.INT4, ir.DataType.UINT4}
        return (_is_weight(output) or moved) and codes_of(output) is not None and stored

    @override
    def why_not(self, node: ir.Node) -> str | None:
        if node.op_type == "Transpose":
            source = node.inputs[0]
            shared = source is None or not only_reader(source, node)
            return "its quantized input has other readers" if shared else None
        if _parameters(node) is None:
            return "its scale or zero point is computed at run time"
        if node.op_type == "QuantizeLinear" and node.outputs[0].dtype not in _RANGE:
            return f"constants of type {node.outputs[0].dtype} are not known"
        return None

    @override
    def rewrite(self, node: ir.Node) -> None:
        if node.op_type == "Transpose":
            _transpose(node)
        elif node.op_type == "QuantizeLinear":
            _quantize(node)
        else:
            _dequantize(node)


def _stem(value: ir.Value | None) -> str:
    """The name of the tensor that a constant holds, whatever form of it this is."""
    assert value is not None
    return str(value.name).removesuffix("/codes").removesuffix("_quantized")


def _replace(node: ir.Node, name: str, array: npt.NDArray[np.generic]) -> None:
    """Put a constant in the place of `node`."""
    assert isinstance(node.graph, ir.Graph)
    new = add_initializer(node.graph, name, array)
    node.outputs[0].replace_all_uses_with(new)
    node.graph.remove(node, safe=True)


def _quantize(node: ir.Node) -> None:
    """Round a constant now."""
    found, dtype = _parameters(node), node.outputs[0].dtype
    assert found is not None
    assert dtype is not None
    data, scale, zero = found
    low, high, storage = _RANGE[dtype]
    codes = np.clip(np.rint(data.astype(np.float32) / scale) + zero, low, high)
    _replace(node, f"{_stem(node.inputs[0])}/codes", codes.astype(storage))


def _dequantize(node: ir.Node) -> None:
    """Put the real values in the place of a DequantizeLinear, or widen its storage."""
    found = _parameters(node)
    assert found is not None
    data, scale, zero = found
    codes = node.inputs[0]
    assert codes is not None
    assert isinstance(node.graph, ir.Graph)
    small = codes.dtype in {ir.DataType.INT4, ir.DataType.UINT4}
    blocked = node.attributes.get_int("block_size", 0) != 0
    if small and not blocked and _is_weight(node.outputs[0]):
        _widen(node, data)
        return
    real = (data.astype(np.float32) - zero) * scale
    _replace(node, _stem(codes), real.astype(np.float32))


def _widen(node: ir.Node, data: npt.NDArray[np.generic]) -> None:
    """Store 4-bit codes and their zero points as 8-bit ones."""
    graph, codes = node.graph, node.inputs[0]
    assert isinstance(graph, ir.Graph)
    assert codes is not None
    storage = np.int8 if codes.dtype == ir.DataType.INT4 else np.uint8
    node.replace_input_with(
        0, add_initializer(graph, f"{_stem(codes)}/codes", data.astype(storage))
    )
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is not None and zero.const_value is not None:
        points = zero.const_value.numpy().astype(storage)
        node.replace_input_with(2, add_initializer(graph, f"{zero.name}_8", points))


def _transpose(node: ir.Node) -> None:
    """Transpose the codes instead of the weight."""
    source, graph = node.inputs[0], node.graph
    found = codes_of(source)
    assert found is not None
    assert source is not None
    assert isinstance(graph, ir.Graph)
    order = node.attributes.get_ints("perm", tuple(reversed(range(found.codes.ndim))))
    name = f"{_stem(found.node.inputs[0])}/codes"
    codes = add_initializer(graph, name, np.ascontiguousarray(found.codes.transpose(order)))
    found.node.replace_input_with(0, codes)
    if found.params.axis is not None:
        axis = list(order).index(found.params.axis)
        found.node.attributes["axis"] = ir.AttrInt64("axis", axis)
    source.shape = node.outputs[0].shape
    node.outputs[0].replace_all_uses_with(source)
    graph.remove(node, safe=True)

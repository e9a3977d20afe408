"""The network as TensorRT's ONNX parser likes it: every tensor gets the name it has here.

The parser names a tensor after its ONNX value. What it makes up itself in the middle of an operator
is called `(Unnamed Layer* 7) [Shuffle]_output` and cannot have a row in a cache:

    Gemm(x [M, K], W, b)     → Reshape(Conv1x1(Reshape(x, [M, K, 1, 1]), W, b), [M, N])
    Mul(x [1, C, H, W], 2)   → Mul(x, [[[[2]]]])        the parser broadcasts ranks by Shuffles

Reference: onnx/onnx-tensorrt 10.1 ImporterContext.cpp `registerTensor`, onnxOpImporters.cpp
`DEFINE_BUILTIN_OP_IMPORTER(Gemm)`, importerUtils.cpp `broadcastTensors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, ShapeInferencePass

from qconvert.backends.tensorrt.lowering import add_constant
from qconvert.graph import constant, shape_of
from qconvert.qdq import codes_of, pair_of

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["inline", "rewrite"]

_BROADCAST: Final = frozenset({"Add", "Div", "Max", "Min", "Mul", "Pow", "PRelu", "Sub"})


def inline(model: ir.Model) -> None:
    """Expand functions in place, and give every value of theirs its shape."""
    if not model.functions:
        return
    InlinePass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    ShapeInferencePass()(model)
    names: set[str] = set()
    for index, node in enumerate(model.graph):
        name = node.name or f"{node.op_type}_{index}"
        while name in names:
            name += "_"
        names.add(name)
        node.name = name


def rewrite(model: ir.Model) -> None:
    """Rewrite layers that the parser would make unnamed tensors for; works on Q/DQ models too."""
    for node in tuple(model.graph):
        if node.domain:
            continue
        if node.op_type == "Gemm" and _is_layer(node):
            _as_convolution(node)
        elif node.op_type in _BROADCAST:
            _match_ranks(node)


def _is_layer(node: ir.Node) -> bool:
    """Whether a Gemm multiplies a tensor by a stored matrix."""
    plain = (
        node.attributes.get_int("transA", 0) == 0
        and node.attributes.get_float("alpha", 1.0) == 1.0
        and node.attributes.get_float("beta", 1.0) == 1.0
    )
    weight = node.inputs[1]
    if not plain or (constant(weight) is None and codes_of(weight) is None):
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return True
    array = constant(bias)
    columns = shape_of(node.outputs[0])[1]
    return array is not None and array.size in (1, columns) and array.shape[-1:] != (0,)


def _as_convolution(node: ir.Node) -> None:
    """Gemm → Reshape, 1x1 Conv of the same name, Reshape."""
    graph, output, source = node.graph, node.outputs[0], node.inputs[0]
    assert isinstance(graph, ir.Graph)
    assert source is not None
    (rows, depth), (_, columns) = shape_of(source), shape_of(output)
    _turn_weight(node, (columns, depth, 1, 1))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        array = constant(bias)
        assert array is not None
        whole = np.broadcast_to(array.reshape(-1), (columns,))
        node.replace_input_with(2, add_constant(node, "bias", whole))
    pair = pair_of(source)
    alone = pair is not None and len(list(pair.output.uses())) == 1
    # The pair goes right in front of the Conv, unless others read it as it is.
    first = pair.source if pair is not None and alone else source
    mapped = _reshaped(node, first, (rows, depth, 1, 1), "map")
    graph.insert_before(node if pair is None or not alone else pair.nodes[0], mapped)
    if pair is not None and alone:
        _move_pair(node, pair.nodes, mapped.outputs[0])
    else:
        node.replace_input_with(0, mapped.outputs[0])
    made = ir.val(f"{node.name}/product", ir.DataType.FLOAT, ir.Shape((rows, columns, 1, 1)))
    shape = add_constant(node, "shape", np.asarray([rows, columns], np.int64))
    back = ir.node(
        "Reshape", [made, shape], outputs=[output_like(output)], name=f"{node.name}/flat"
    )
    conv = ir.node("Conv", list(node.inputs), outputs=[made], name=node.name)
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [conv, back], [output], [back.outputs[0]]
    )


def output_like(value: ir.Value) -> ir.Value:
    """A fresh value of the type, shape and name of `value`."""
    return ir.val(value.name, type=value.type, shape=value.shape)


def _reshaped(node: ir.Node, value: ir.Value, shape: tuple[int, ...], part: str) -> ir.Node:
    """A Reshape of `value`, in no graph yet."""
    target = add_constant(node, f"{part}_shape", np.asarray(shape, np.int64))
    made = ir.val(f"{node.name}/{part}", ir.DataType.FLOAT, ir.Shape(shape))
    return ir.node("Reshape", [value, target], outputs=[made], name=f"{node.name}/{part}")


def _move_pair(node: ir.Node, nodes: tuple[ir.Node, ...], value: ir.Value) -> None:
    """Let a pair quantize `value`, in front of `node`."""
    nodes[0].replace_input_with(0, value)
    for member in nodes:
        member.outputs[0].shape = value.shape
    node.replace_input_with(0, nodes[-1].outputs[0])


def _turn_weight(node: ir.Node, shape: tuple[int, ...]) -> None:
    """The matrix of a Gemm as a kernel [N, K, 1, 1]."""
    graph, weight = node.graph, node.inputs[1]
    assert isinstance(graph, ir.Graph)
    assert weight is not None
    turned = node.attributes.get_int("transB", 0) == 0
    array = constant(weight)
    if array is not None:
        node.replace_input_with(1, add_constant(node, "kernel", _kernel(array, shape, turned)))
        return
    codes = codes_of(weight)
    assert codes is not None
    kernel = add_constant(node, "kernel/codes", _kernel(codes.codes, shape, turned))
    inputs = [kernel, *codes.node.inputs[1:]]
    attributes = {} if codes.params.axis is None else {"axis": 0}
    made = ir.val(f"{node.name}.kernel/dequantized", ir.DataType.FLOAT, ir.Shape(shape))
    name = f"{node.name}.kernel/dequantize"
    fresh = ir.node("DequantizeLinear", inputs, attributes, outputs=[made], name=name)
    graph.insert_before(node, fresh)
    node.replace_input_with(1, made)
    if not weight.uses():
        graph.remove(codes.node, safe=True)


def _kernel(
    matrix: npt.NDArray[np.generic], shape: tuple[int, ...], turned: bool
) -> npt.NDArray[np.generic]:
    return np.ascontiguousarray(matrix.T if turned else matrix).reshape(shape)


def _match_ranks(node: ir.Node) -> None:
    """Give the constants of an element-wise operator the rank of its output."""
    ranks = len(node.outputs[0].shape) if node.outputs[0].shape is not None else 0
    for index, value in enumerate(node.inputs):
        array = constant(value)
        if value is None or array is None or array.ndim >= ranks or value.dtype is None:
            continue
        shape = (1,) * (ranks - array.ndim) + array.shape
        if node.op_type == "PRelu" and array.size > 1 and array.ndim == 1:
            continue
        node.replace_input_with(index, add_constant(node, f"input_{index}", array.reshape(shape)))
        if not value.uses() and value.is_initializer():
            assert node.graph is not None
            node.graph.initializers.pop(str(value.name), None)

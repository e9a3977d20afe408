"""Single nodes on numpy arrays, for folding constants: onnx's reference implementation.

Only operators whose result is exact or elementwise are computed; a node whose result would be
large is left in the graph.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from qconvert.graph import OPSET

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["FOLDABLE", "can_evaluate", "evaluate"]

FOLDABLE: Final = frozenset(
    {
        "Abs", "Add", "And", "ArgMax", "ArgMin", "BitShift", "BitwiseAnd", "BitwiseNot",
        "BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "Cos",
        "CumSum", "Div", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "Gather",
        "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Identity", "Less",
        "LessOrEqual", "Log", "MatMul", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "NonZero",
        "Not", "OneHot", "Or", "Pad", "Pow", "QuantizeLinear", "Range", "Reciprocal", "ReduceL1",
        "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
        "ReduceSumSquare", "Relu", "Reshape", "Round", "ScatterElements", "ScatterND", "Sigmoid",
        "Sign", "Sin", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile",
        "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
    }
)  # fmt: skip


def can_evaluate(node: ir.Node, limit: int) -> bool:
    """Whether the outputs of a node with constant inputs may be computed now.

    Args:
        node: With types and shapes on its outputs.
        limit: Bytes that are always acceptable for all outputs together.
    """
    if node.op_type not in FOLDABLE:
        return False
    if node.op_type == "NonZero":
        return True  # its shape is known only afterwards; at most 8 * rank bytes per element
    total = 0
    for value in node.outputs:
        if value.shape is None or value.dtype is None:
            return False
        dims = list(value.shape)
        if not all(isinstance(dim, int) for dim in dims):
            return False
        total += math.prod(int(dim) for dim in value.shape.numpy()) * int(value.dtype.itemsize)
    return total <= limit


def evaluate(
    node: ir.Node, arrays: Sequence[npt.NDArray[Any] | None]
) -> list[npt.NDArray[Any]] | None:
    """Compute a node.

    Args:
        node: A node for which `can_evaluate` holds.
        arrays: One array per input; None for an optional one that is left out.

    Returns:
        One array per output; None when the reference implementation cannot do it.
    """
    # A function, because it can say which operator set it means.
    function = onnx.FunctionProto(name="node", domain="node")
    function.opset_import.add(domain="", version=OPSET)
    proto = function.node.add(op_type=node.op_type)
    proto.input.extend("" if array is None else f"i{i}" for i, array in enumerate(arrays))
    proto.output.extend(f"o{i}" for i in range(len(node.outputs)))
    proto.attribute.extend(
        ir.serde.serialize_attribute(attribute) for attribute in node.attributes.values()
    )
    feeds = {
        # Arrays on a buffer have the type `<i8`, which the reference does not take for int64.
        f"i{i}": array.astype(array.dtype.newbyteorder("="), copy=False)
        for i, array in enumerate(arrays)
        if array is not None
    }
    function.input.extend(feeds)
    function.output.extend(proto.output)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = list(ReferenceEvaluator(function).run(None, feeds, attributes={}))
    except MemoryError:
        raise
    except Exception:
        return None
    return _of_declared_type(node, results)


def _of_declared_type(node: ir.Node, results: Sequence[Any]) -> list[npt.NDArray[Any]] | None:
    """The results as arrays; None unless type and shape are those inference promised."""
    arrays = [np.asarray(result) for result in results]
    for value, array in zip(node.outputs, arrays, strict=True):
        if value.dtype is None or ir.DataType.from_numpy(array.dtype) != value.dtype:
            return None
        dims = list(value.shape) if value.shape is not None else None
        if dims is None or len(dims) != array.ndim:
            return None
        if any(isinstance(d, int) and d != n for d, n in zip(dims, array.shape, strict=True)):
            return None
    return arrays

"""Builds the new graph node by node: every value gets its type and shape, what is known is folded.

A node whose inputs are all constants becomes constants, a node that changes nothing disappears,
`Shape` and `Size` of a known shape are constants: exporter debris (Shape, Gather, Unsqueeze,
Concat, Reshape chains) is gone when the last node is placed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from qconvert.errors import ModelFormatError
from qconvert.frontends.onnx.evaluate import can_evaluate, evaluate
from qconvert.frontends.onnx.noop import passes_through
from qconvert.graph import IR_VERSION, OPSET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

__all__ = ["Builder", "known_shape", "type_proto"]

FOLD_LIMIT: Final = 1 << 20
"""Bytes of the largest constant that is computed while shapes are worked out."""

_ABSURD: Final = 1 << 29
"""Elements no tensor of an image network has."""

_LIKE_THEIR_INPUT: Final = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
"""Operators defined by a function body, through which onnx infers nothing."""

_DATA_DEPENDENT: Final = frozenset({"NonMaxSuppression", "NonZero", "Compress", "Unique"})


def known_shape(value: ir.Value) -> tuple[int, ...] | None:
    """The shape when every dimension is a number."""
    if value.shape is None or not all(isinstance(dim, int) for dim in value.shape):
        return None
    return tuple(int(dim) for dim in value.shape.numpy())


class Builder:
    """Collects nodes of one graph.

    Args:
        reserved: Names that only the values they belong to may take (network outputs).
    """

    def __init__(self, reserved: Sequence[str]) -> None:
        self.nodes: list[ir.Node] = []
        self.warnings: list[str] = []
        self.shared: dict[object, ir.Value] = {}
        self.replaced_batch = 1  # what the file declared where the network now has batch 1
        self._names = {"", *reserved}
        self._reserved = set(reserved)
        self._context = onnx.checker.C.CheckerContext()
        self._context.ir_version = IR_VERSION
        self._context.opset_imports = {"": OPSET}

    def warn(self, message: str) -> None:
        """Keep a sentence for the user."""
        self.warnings.append(message)

    def unique(self, name: str) -> str:
        """`name`, or the first free one derived from it; a reserved name is given out once."""
        if name in self._reserved:
            self._reserved.discard(name)
            return name
        candidate, count = name, 1
        while candidate in self._names:
            candidate, count = f"{name}_{count}", count + 1
        self._names.add(candidate)
        return candidate

    def reserve(self, name: str) -> None:
        """Let `unique` give out `name` once more: its value was renamed."""
        self._reserved.add(name)

    def constant(self, array: npt.NDArray[Any] | ir.TensorProtocol, name: str) -> ir.Value:
        """A value known before the graph runs; wide and narrow floats become float32."""
        tensor = ir.tensor(array) if isinstance(array, np.ndarray) else array
        if tensor.dtype in {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}:
            with np.errstate(over="ignore"):
                tensor = ir.tensor(tensor.numpy().astype(np.float32))
        return ir.val(
            self.unique(name), tensor.dtype, shape=tensor.shape.numpy(), const_value=tensor
        )

    def variable(self, name: str, dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
        """A value that comes from outside: a network input or a weight without its data."""
        return ir.val(self.unique(name), dtype, shape=list(shape))

    def emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        *,
        name: str,
        outputs: Sequence[str],
    ) -> list[ir.Value]:
        """Place one node of the standard operator set, or what makes it unnecessary.

        Args:
            op_type: The operator.
            inputs: Its inputs; None for an optional one that is left out.
            attributes: Its attributes.
            name: Its name.
            outputs: Names wanted for its outputs; `""` for one that nobody reads.

        Returns:
            One value per output.

        Raises:
            ModelFormatError: If the node breaks the operator's rules.
        """
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        node = ir.node(
            op_type,
            given,
            dict(attributes),
            outputs=[ir.Value(name=output and f"{output}") for output in outputs],
            name=name,
        )
        self._infer(node)
        alias = passes_through(node)
        if alias is not None:
            return self._drop(node, [alias])
        folded = self._fold(node)
        if folded is not None:
            return self._drop(node, folded)
        for value in node.outputs:
            value.name = value.name and self.unique(value.name)
        self.nodes.append(node)
        return list(node.outputs)

    def place(self, node: ir.Node) -> None:
        """Append a finished node as it is."""
        self.nodes.append(node)

    def _drop(self, node: ir.Node, results: list[ir.Value]) -> list[ir.Value]:
        """Take back a node that is not needed; its inputs forget it."""
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)
        return results

    def _infer(self, node: ir.Node) -> None:
        """Set type and shape of the outputs."""
        # Inference and checker know values by name; ours may be provisional or shared.
        proto = onnx.NodeProto(op_type=node.op_type, name=node.name)
        types: dict[str, onnx.TypeProto] = {}
        data: dict[str, onnx.TensorProto] = {}
        for index, value in enumerate(node.inputs):
            proto.input.append("" if value is None else f"i{index}")
            if value is not None:
                types[f"i{index}"] = type_proto(value)
                if value.const_value is not None and value.const_value.nbytes <= FOLD_LIMIT:
                    tensor = ir.serde.serialize_tensor(value.const_value)
                    tensor.name = f"i{index}"
                    data[f"i{index}"] = tensor
        proto.output.extend(f"o{index}" for index in range(len(node.outputs)))
        proto.attribute.extend(
            ir.serde.serialize_attribute(attribute) for attribute in node.attributes.values()
        )
        try:
            schema = onnx.defs.get_schema(node.op_type, OPSET, "")
            onnx.checker.check_node(proto, self._context)
            inferred = onnx.shape_inference.infer_node_outputs(
                schema,
                proto,
                types,
                data,
                {},
                [onnx.OperatorSetIdProto(domain="", version=OPSET)],
                IR_VERSION,
            )
        except Exception as error:
            raise ModelFormatError(
                f"node '{node.name}' breaks the rules of {node.op_type}", why=_first_line(error)
            ) from error
        for index, value in enumerate(node.outputs):
            _set_type(value, inferred.get(f"o{index}"))
            if node.op_type in _LIKE_THEIR_INPUT and node.inputs[0] is not None:
                value.type, value.shape = node.inputs[0].type, node.inputs[0].shape
            if node.op_type in _LIKE_THEIR_INPUT and node.inputs[0] is not None:
                value.type, value.shape = node.inputs[0].type, node.inputs[0].shape
            _check_size(node, value)

    def _fold(self, node: ir.Node) -> list[ir.Value] | None:
        """The outputs as constants, when they are known and small."""
        arrays = self._known_outputs(node)
        if arrays is None:
            return None
        return [
            self.constant(array, str(value.name)) if value.name else ir.Value(name="")
            for array, value in zip(arrays, node.outputs, strict=True)
        ]

    def _known_outputs(self, node: ir.Node) -> list[npt.NDArray[Any]] | None:
        """What a node computes, if that is known now."""
        first = node.inputs[0] if node.inputs else None
        if first is not None and node.op_type in {"Shape", "Size"}:
            return _described(node, first)
        feeds = []
        for value in node.inputs:
            if value is not None and value.const_value is None:
                return None
            feeds.append(None if value is None else value.const_value)
        if not can_evaluate(node, FOLD_LIMIT):
            return None
        return evaluate(node, [None if feed is None else feed.numpy() for feed in feeds])

    def depends_on_data(self, node: ir.Node) -> bool:
        """Whether a node may have an output whose shape only running it tells."""
        return node.op_type in _DATA_DEPENDENT or any(
            value is not None and known_shape(value) is None for value in node.inputs
        )


def _described(node: ir.Node, value: ir.Value) -> list[npt.NDArray[Any]] | None:
    """The result of Shape or Size of a value whose shape is known."""
    shape = known_shape(value)
    if shape is None:
        return None
    if node.op_type == "Size":
        return [np.array(int(np.prod(shape, dtype=np.int64)), dtype=np.int64)]
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", len(shape))
    return [np.array(shape[slice(start, end)], dtype=np.int64)]


def type_proto(value: ir.Value) -> onnx.TypeProto:
    """Type and shape of a value for onnx's shape inference."""
    proto = onnx.TypeProto()
    proto.tensor_type.elem_type = int(value.dtype or 0)
    if value.shape is not None:
        proto.tensor_type.shape.SetInParent()
        for dim in value.shape:
            entry = proto.tensor_type.shape.dim.add()
            if isinstance(dim, int):
                entry.dim_value = dim
    return proto


def _set_type(value: ir.Value, proto: onnx.TypeProto | None) -> None:
    """Take over what shape inference found."""
    if proto is None or not proto.HasField("tensor_type"):
        return
    value.type = ir.TensorType(ir.DataType(proto.tensor_type.elem_type))
    if proto.tensor_type.HasField("shape"):
        value.shape = ir.Shape(
            dim.dim_value if dim.HasField("dim_value") else None
            for dim in proto.tensor_type.shape.dim
        )


def _check_size(node: ir.Node, value: ir.Value) -> None:
    """Refuse tensors that no machine of ours could hold."""
    shape = known_shape(value)
    if shape is None:
        return
    elements = 1
    for dim in shape:
        elements *= max(dim, 1)
    if min(shape, default=0) < 0 or elements > _ABSURD:
        raise ModelFormatError(
            f"node '{node.name}' ({node.op_type}) has an output of shape {list(shape)}",
            why="no tensor of an image network has that shape",
        )


def _first_line(error: Exception) -> str:
    """The first line of a message that has something to say."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__

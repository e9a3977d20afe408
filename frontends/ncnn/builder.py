"""The workbench of the layer converters: values by blob name, nodes with shapes, weights.

ncnn has no batch axis: a blob `[c, h, w]` is a value `[1, c, h, w]`, `[h, w]` is `[1, h, w]`,
`[w]` is `[1, w]`. *Dims* always means the shape without the batch axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import onnx_ir as ir

from qconvert.errors import ModelFormatError, Problem, UnsupportedError
from qconvert.graph import PLACE, shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from qconvert.formats.ncnn_param import Layer
    from qconvert.quant import F32
    from qconvert.report import Report

__all__ = ["FIX_UNSUPPORTED", "Attribute", "Builder", "Dims"]

Dims: TypeAlias = tuple[int, ...]
"""A shape without the batch axis, outermost first."""

Attribute: TypeAlias = "int | float | str | Sequence[int] | Sequence[float]"

FIX_UNSUPPORTED: Final = "remove the layer, or convert from the model the .param was made of"

_LARGEST: Final = 2**31 - 1
_LARGEST_TABLE: Final = 2**26


@dataclass(slots=True)
class Builder:
    """Makes the nodes of one layer after the other.

    Attributes:
        report: For warnings.
        model: Gets model-local functions; its graph stays empty until the end.
        taken: Every blob and layer name of the source, and what was made so far: nothing may be
            called like these.
        nodes: All nodes so far, in order.
        initializers: All constants so far.
        values: Blob name → value.
        layer: The layer being converted.
        weights: Its weights by slot name, each [count].
        quantized: (value name, ncnn scale) → its quantized and dequantized twin.
        top_scales: Value name → ncnn scale at which its layer rounds it to int8.
    """

    report: Report
    model: ir.Model
    taken: set[str]
    nodes: list[ir.Node] = field(default_factory=list)
    initializers: list[ir.Value] = field(default_factory=list)
    values: dict[str, ir.Value] = field(default_factory=dict)
    _layer: Layer | None = None
    weights: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    _named: bool = False
    quantized: dict[tuple[str, float], ir.Value] = field(default_factory=dict)
    top_scales: dict[str, float] = field(default_factory=dict)

    @property
    def layer(self) -> Layer:
        """The layer being converted."""
        assert self._layer is not None
        return self._layer

    def begin(self, layer: Layer, weights: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Turn to the next layer."""
        self._layer, self.weights, self._named = layer, weights, False

    # Questions about the layer ------------------------------------------------------------------

    def input(self, index: int = 0) -> ir.Value:
        """Input `index` of the layer.

        Raises:
            ModelFormatError: If the layer has not so many.
        """
        if index >= len(self.layer.inputs):
            raise self.bad(
                f"{self.layer.kind} '{self.layer.name}' has {len(self.layer.inputs)} inputs",
                f"it needs {index + 1}",
            )
        return self.values[self.layer.inputs[index]]

    def inputs(self) -> list[ir.Value]:
        """All inputs of the layer, at least one."""
        self.input()
        return [self.values[name] for name in self.layer.inputs]

    def weight(self, name: str) -> F32:
        """A float32 weight [count] of the layer.

        Raises:
            ModelFormatError: If it is stored as int8, or holds a NaN or an infinity.
        """
        array = self.weights[name]
        if array.dtype != np.float32:
            raise self.bad(
                f"the {name} of '{self.layer.name}' is stored as {array.dtype}",
                "the layer's parameters say nothing of quantization",
            )
        data: F32 = array.astype(np.float32, copy=False)
        if not np.isfinite(data).all():
            raise self.bad(f"the {name} of '{self.layer.name}' holds a NaN or an infinity")
        return data

    def positive(self, key: int, default: int) -> int:
        """Integer parameter `key`, at least 1.

        Raises:
            ModelFormatError: If it is below 1.
        """
        value = self.layer.int(key, default)
        if value < 1:
            raise self.bad(
                f"parameter {key} of {self.layer.kind} '{self.layer.name}' is {value}",
                "it has to be 1 or more",
            )
        return value

    def axis(self, axis: int, rank: int) -> int:
        """`axis` of a blob of `rank` dims, counted from 0.

        Raises:
            ModelFormatError: If there is no such axis.
        """
        if not -rank <= axis < rank:
            raise self.bad(
                f"{self.layer.kind} '{self.layer.name}' works on axis {axis}",
                f"its input has {rank} dims",
            )
        return axis % rank

    def bad(self, what: str, why: str = "") -> ModelFormatError:
        """An error at the place of the layer."""
        return ModelFormatError(what, at=self.layer.place, why=why)

    def unsupported(self, what: str, why: str = "") -> UnsupportedError:
        """A refusal at the place of the layer."""
        problem = Problem(what, f"layer '{self.layer.name}' ({self.layer.place})", why)
        return UnsupportedError.of([problem], who="the ncnn reader", fix=FIX_UNSUPPORTED)

    @staticmethod
    def dims(value: ir.Value) -> Dims:
        """Shape of `value` without the batch axis."""
        return shape_of(value)[1:]

    # Making things ------------------------------------------------------------------------------

    def unique(self, name: str) -> str:
        """`name`, or the first of `name_2`, `name_3`, ... that is free."""
        candidate, count = name, 1
        while candidate in self.taken:
            count += 1
            candidate = f"{name}_{count}"
        self.taken.add(candidate)
        return candidate

    def constant(self, array: npt.NDArray[np.generic], part: str) -> ir.Value:
        """An initializer `<layer>.<part>`."""
        return self.named(array, f"{self.layer.name}.{part}")

    def named(self, array: npt.NDArray[np.generic], wanted: str) -> ir.Value:
        """An initializer called `wanted`, or nearly so if that is taken."""
        name = self.unique(wanted)
        tensor = ir.tensor(np.asarray(array, order="C"), name=name)
        value = ir.val(name, const_value=tensor, dtype=tensor.dtype, shape=array.shape)
        self.initializers.append(value)
        return value

    def scalar(self, number: float, part: str) -> ir.Value:
        """A float32 initializer of shape []."""
        return self.constant(np.asarray(number, dtype=np.float32), part)

    def ints(self, numbers: Sequence[int], part: str) -> ir.Value:
        """An int64 initializer of shape [len]."""
        return self.constant(np.asarray(numbers, dtype=np.int64), part)

    def emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        dims: Sequence[int],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        part: str = "",
        dtype: ir.DataType = ir.DataType.FLOAT,
    ) -> ir.Value:
        """Add a node with one output and return the output.

        Args:
            op_type: ONNX operator.
            inputs: Its inputs.
            dims: Dims of its output.
            attributes: Its attributes.
            part: What the node is within the layer; empty for the node that stands for the
                layer and carries its name.
            dtype: Of the output.

        Raises:
            ModelFormatError: If the output is empty or absurdly large.
        """
        return self.emit_several(op_type, inputs, [dims], attributes, part=part, dtype=dtype)[0]

    def emit_several(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        dims: Sequence[Sequence[int]],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        part: str = "",
        dtype: ir.DataType = ir.DataType.FLOAT,
    ) -> list[ir.Value]:
        """Add a node with one output for each of `dims`; see `emit`."""
        for shape in dims:
            self.check(shape)
        name = self.layer.name if not part and not self._named else None
        self._named = self._named or name is not None
        node = ir.node(
            op_type,
            list(inputs),
            dict(attributes or {}),
            num_outputs=len(dims),
            name=name or self.unique(f"{self.layer.name}/{part or op_type.lower()}"),
        )
        node.metadata_props[PLACE] = self.layer.place
        base = f"{self.layer.name}/{part or op_type.lower()}"
        for output, shape in zip(node.outputs, dims, strict=True):
            output.name = self.unique(f"{base}_out")
            output.type = ir.TensorType(dtype)
            output.shape = ir.Shape([1, *shape])
        self.nodes.append(node)
        return list(node.outputs)

    def adopt(self, node: ir.Node, dims: Sequence[int] | None = None) -> ir.Value:
        """Add a call of a function with one output, the node that stands for the layer.

        Args:
            node: The call, in no graph yet.
            dims: Dims of its output; None keeps what the function says (rows of a number that
                depends on the data).
        """
        node.name = self.layer.name
        node.metadata_props[PLACE] = self.layer.place
        self._named = True
        self.nodes.append(node)
        (output,) = node.outputs
        output.name = self.unique(f"{self.layer.name}/result")
        if dims is not None:
            output.shape = ir.Shape([1, *dims])
        return output

    def check(self, dims: Sequence[int]) -> None:
        """Refuse dims no blob can have.

        Raises:
            ModelFormatError: If one is below 1, or there are more than 2^31 - 1 elements.
        """
        if any(dim < 1 for dim in dims) or math.prod(dims) > _LARGEST:
            raise self.bad(
                f"{self.layer.kind} '{self.layer.name}' gives a blob of shape {list(dims)}",
                "every dimension is at least 1, and a blob has at most 2^31 - 1 elements",
            )

    def check_table(self, dims: Sequence[int]) -> None:
        """Refuse a table made from parameters that would take absurd memory.

        Raises:
            ModelFormatError: If it has more than 2^26 elements.
        """
        if math.prod(dims) > _LARGEST_TABLE:
            raise self.bad(
                f"{self.layer.kind} '{self.layer.name}' needs a table of shape {list(dims)}",
                f"more than {_LARGEST_TABLE} numbers that are in no file",
            )

    def reshape(self, value: ir.Value, dims: Sequence[int], part: str = "reshape") -> ir.Value:
        """`value` with other dims; itself when it has them already."""
        if self.dims(value) == tuple(dims):
            return value
        return self.emit(
            "Reshape", [value, self.ints([1, *dims], f"{part}_shape")], dims, part=part
        )

    def as_image(self, value: ir.Value) -> ir.Value:
        """`value` as ncnn's image layers see it: `[h, w]` and `[w]` are images of one channel."""
        dims = self.dims(value)
        if len(dims) == 4:
            raise self.bad(
                f"{self.layer.kind} '{self.layer.name}' reads a blob of 4 dims",
                "it works on images: [c, h, w]",
            )
        return self.reshape(value, (1,) * (3 - len(dims)) + dims, "image")

    # Results ------------------------------------------------------------------------------------

    def finish(self, results: Sequence[ir.Value]) -> None:
        """Bind what a converter returned to the output blobs of the layer.

        A result that is an input of the layer, or a constant, becomes a blob by an Identity.

        Raises:
            ModelFormatError: If the layer has another number of outputs.
        """
        layer = self.layer
        if len(results) != len(layer.outputs):
            raise self.bad(
                f"{layer.kind} '{layer.name}' has {len(layer.outputs)} outputs",
                f"it should have {len(results)}",
            )
        for blob, result in zip(layer.outputs, results, strict=True):
            value = result
            if value.producer() is None or value.name in self.values:
                value = self.emit("Identity", [result], self.dims(result), dtype=_dtype(result))
            value.name = blob
            self.values[blob] = value
        if not self._named and results:
            self._give_name(self.values[layer.outputs[0]].producer())

    def _give_name(self, node: ir.Node | None) -> None:
        """Let the last of several helper nodes stand for the layer."""
        if node is not None:
            node.name = self.layer.name

    def alias(self, names: Sequence[str], value: ir.Value) -> None:
        """Let blobs be other names of `value`."""
        for name in names:
            self.values[name] = value


def _dtype(value: ir.Value) -> ir.DataType:
    """Type of the elements of `value`."""
    return value.dtype if value.dtype is not None else ir.DataType.FLOAT

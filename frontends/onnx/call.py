"""One node of the source, as its converter sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from qconvert.frontends.onnx.builder import Builder, known_shape
from qconvert.frontends.onnx.registry import Refused
from qconvert.graph import constant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

__all__ = ["Call"]

_FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


@dataclass(slots=True)
class Call:
    """A node to convert, with everything in the new graph's terms.

    Attributes:
        builder: Of the new graph.
        op_type: The operator.
        domain: Its domain; `""` for the standard one.
        version: The opset of that domain the node was written for.
        name: The name it is to have.
        inputs: Converted inputs; None for an optional one that is left out.
        attributes: Its attributes, references resolved.
        outputs: Names wanted; `""` for an output that nobody reads.
    """

    builder: Builder
    op_type: str
    domain: str
    version: int
    name: str
    inputs: Sequence[ir.Value | None]
    attributes: Mapping[str, ir.Attr]
    outputs: Sequence[str]

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - any attribute type
        """The value of an attribute."""
        attribute = self.attributes.get(key)
        return default if attribute is None else attribute.value

    def plain(self, *without: str) -> dict[str, Any]:
        """The attributes to copy: all but those named."""
        return {key: a for key, a in self.attributes.items() if key not in without}

    def input(self, index: int) -> ir.Value | None:
        """An input, None when it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def value(self, index: int) -> ir.Value:
        """An input that must be there.

        Raises:
            Refused: If it is left out.
        """
        value = self.input(index)
        if value is None:
            raise Refused(f"input {index} is missing")
        return value

    def array(self, index: int, what: str) -> npt.NDArray[Any]:
        """An input that must be known now.

        Raises:
            Refused: If it is computed at run time.
        """
        array = constant(self.value(index))
        if array is None:
            raise Refused(f"its {what} is computed at run time")
        return array

    def shape(self, index: int) -> tuple[int, ...]:
        """The shape of an input.

        Raises:
            Refused: If it depends on data.
        """
        shape = known_shape(self.value(index))
        if shape is None:
            raise Refused(f"the shape of its input {index} depends on data")
        return shape

    def axis(self, default: int) -> int:
        """The attribute `axis`, counted from the front of input 0."""
        rank, axis = len(self.shape(0)), int(self.get("axis", default))
        if not -rank <= axis <= rank:
            raise Refused(f"axis {axis} is outside the {rank} axes of its input")
        return axis + rank if axis < 0 else axis

    def constant(self, part: str, data: npt.ArrayLike, dtype: npt.DTypeLike) -> ir.Value:
        """A new initializer `<name>.<part>`."""
        return self.builder.constant(np.asarray(data, dtype=dtype), f"{self.name}.{part}")

    def emit(
        self,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        op_type: str = "",
    ) -> list[ir.Value]:
        """Place the node that stands for this one: its name, its outputs."""
        return self.builder.emit(
            op_type or self.op_type,
            inputs,
            _float32(attributes),
            name=self.name,
            outputs=self.outputs,
        )

    def emit_first(
        self, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]
    ) -> ir.Value:
        """Place the node with its first output alone."""
        (value,) = self.builder.emit(
            self.op_type, inputs, _float32(attributes), name=self.name, outputs=self.outputs[:1]
        )
        return value

    def helper(
        self,
        part: str,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """Place a node `<name>/<part>` with one output of that name."""
        name = f"{self.name}/{part}"
        (value,) = self.builder.emit(
            op_type, inputs, _float32(attributes or {}), name=name, outputs=[name]
        )
        return value

    def refuse_outputs(self, first: int, why: str) -> None:
        """Refuse when an output from `first` on is read.

        Raises:
            Refused: With `why`.
        """
        if any(self.outputs[first:]):
            raise Refused(why)


def _float32(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with every type and tensor of wide or narrow floats made float32."""
    return {key: _float32_attribute(key, value) for key, value in attributes.items()}


def _float32_attribute(key: str, value: Any) -> Any:  # noqa: ANN401 - any attribute type
    if not isinstance(value, ir.Attr):
        return value
    if key in {"to", "dtype", "output_dtype"} and value.type == ir.AttributeType.INT:
        return 1 if value.as_int() in {int(dtype) for dtype in _FLOATS} else value
    if value.type == ir.AttributeType.TENSOR:
        tensor = value.as_tensor()
        if tensor.dtype in _FLOATS:
            return ir.AttrTensor(key, ir.tensor(tensor.numpy().astype(np.float32)))
    return value

"""What an operator converter works with: one layer of a network that is being built."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import onnx_ir as ir

from qconvert.errors import ModelFormatError
from qconvert.graph import PLACE, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from qconvert.errors import Problem
    from qconvert.frontends.darknet.cfg import Section
    from qconvert.frontends.darknet.weights import Weights
    from qconvert.functions.region import GridHead, RegionHead
    from qconvert.functions.yolo import YoloHead
    from qconvert.quant import F32
    from qconvert.report import Report
    from qconvert.source import ReadOptions

    Attribute: TypeAlias = int | float | str | Sequence[int]
    Attributes: TypeAlias = Mapping[str, Attribute]

__all__ = ["LARGEST", "Head", "Layer", "Network", "check_size", "lazy"]

LARGEST: Final = 2**29
"""Most elements of one array: 2 GiB of float32, where ONNX files end."""


@dataclass(frozen=True, slots=True)
class Head:
    """A detection head of the network.

    Attributes:
        name: The layer's name.
        place: The layer's place.
        parameters: Of the head.
        raw: The map that enters it.
        value: What it gives.
    """

    name: str
    place: str
    parameters: YoloHead | RegionHead | GridHead
    raw: ir.Value
    value: ir.Value


@dataclass(slots=True)
class Network:
    """A network that is being built.

    Attributes:
        model: Grows by one layer at a time.
        width: Of the input image; 0 for a network without one.
        height: Of the input image; 0 for a network without one.
        weights: Where the numbers come from.
        options: How to read.
        report: For warnings.
        values: What each layer gives, by index.
        heads: Detection heads met so far.
        shared: Index of a convolution → the arrays it reads, for layers that share them.
        problems: What cannot be expressed.
    """

    model: ir.Model
    width: int
    height: int
    weights: Weights
    options: ReadOptions
    report: Report
    values: list[ir.Value] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    shared: dict[int, Mapping[str, ir.Value]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class Layer:
    """One layer: its section, its input, and the means to give it nodes.

    Attributes:
        section: Options, with types and lines.
        index: Counts sections after [net], from 0.
        name: `<type>_<index>`; the layer's main node and its result are called so.
        x: What the layer before gives (or the network's input).
        network: The network so far.
    """

    section: Section
    index: int
    name: str
    x: ir.Value
    network: Network

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: Sequence[int],
        attributes: Attributes | None = None,
        *,
        part: str = "",
    ) -> ir.Value:
        """Append a node and return its result.

        Args:
            op_type: A standard operator.
            inputs: Its inputs.
            shape: Of its result.
            attributes: Of the operator.
            part: The node becomes `<layer>/<part>`; empty for the main node of the layer.

        Raises:
            ModelFormatError: If the result has no elements, or absurdly many.
        """
        name = f"{self.name}/{part}" if part else self.name
        check_size(shape, f"layer '{self.name}'", self.section.place)
        given = [_attribute(key, value) for key, value in (attributes or {}).items()]
        node = ir.Node("", op_type, inputs, given, num_outputs=1, name=name)
        return self.append(node, name if part else f"{self.name}/linear", shape)

    def append(self, node: ir.Node, name: str, shape: Sequence[int]) -> ir.Value:
        """Append a ready node with one result called `name`, and return the result."""
        node.metadata_props[PLACE] = self.section.place
        self.network.model.graph.append(node)
        value = node.outputs[0]
        value.name = name
        value.type = ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape(shape)
        return value

    def constant(self, part: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """An initializer `<layer>.<part>` that the layer itself defines."""
        return self.initializer(part, ir.Tensor(array))

    def initializer(self, part: str, tensor: ir.TensorProtocol) -> ir.Value:
        """An initializer `<layer>.<part>`."""
        value = ir.val(f"{self.name}.{part}", const_value=tensor)
        value.type = ir.TensorType(tensor.dtype)
        value.shape = ir.Shape(tensor.shape.numpy())
        self.network.model.graph.register_initializer(value)
        return value

    def take(self, shape: Sequence[int], kind: str) -> ir.TensorProtocol:
        """The next array of the weights file.

        Raises:
            ModelFormatError: If there is none, or the shape is absurd.
        """
        check_size(shape, f"the {kind} of layer '{self.name}'", self.section.place)
        return self.network.weights.take(
            shape, kind=kind, layer=self.name, place=self.section.place
        )

    def reference(self, index: int, key: str) -> int:
        """The index of an earlier layer; a negative one counts back from this layer.

        Raises:
            ModelFormatError: If there is no such layer before this one.
        """
        absolute = self.index + index if index < 0 else index
        if not 0 <= absolute < self.index:
            raise self.section.wrong(
                f"layer '{self.name}' refers to layer {index}",
                f"only the layers 0 to {self.index - 1} come before it",
                key=key,
            )
        return absolute

    def earlier(self, index: int, key: str) -> ir.Value:
        """What an earlier layer gives; see `reference`."""
        return self.network.values[self.reference(index, key)]

    def image(self, value: ir.Value | None = None) -> ir.Value:
        """`value` (or the layer's input) as [1, C, H, W]; a vector becomes channels of a pixel."""
        value = self.x if value is None else value
        shape = shape_of(value)
        return value if len(shape) == 4 else self.reshape(value, (1, shape[1], 1, 1), "image")

    def vector(self, value: ir.Value | None = None) -> ir.Value:
        """`value` (or the layer's input) as [1, N], in Darknet's memory order."""
        value = self.x if value is None else value
        shape = shape_of(value)
        if len(shape) == 2:
            return value
        return self.op("Flatten", [value], (1, math.prod(shape)), {"axis": 1}, part="flat")

    def reshape(self, value: ir.Value, shape: Sequence[int], part: str) -> ir.Value:
        """`value` in another shape."""
        target = self.constant(f"{part}_shape", np.array(shape, dtype=np.int64))
        return self.op("Reshape", [value, target], shape, part=part)


def lazy(compute: Callable[[], F32], shape: Sequence[int]) -> ir.TensorProtocol:
    """A float32 array that is made when somebody looks at it."""
    return ir.LazyTensor(
        lambda: ir.Tensor(np.ascontiguousarray(compute())),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape(shape),
    )


def check_size(shape: Sequence[int], what: str, place: str) -> None:
    """Refuse an array without elements, or with more than `LARGEST`.

    Raises:
        ModelFormatError: If it is one of these.
    """
    if min(shape) < 1:
        raise ModelFormatError(
            f"{what} is empty",
            at=place,
            why=f"its shape would be {list(shape)}",
            fix="check the sizes in the cfg, and the input size",
        )
    if math.prod(shape) > LARGEST:
        raise ModelFormatError(
            f"{what} is too large",
            at=place,
            why=f"its shape would be {list(shape)}, over {LARGEST} elements",
        )


def _attribute(name: str, value: Attribute) -> ir.Attr:
    """An attribute by its plain type: large networks have thousands of them."""
    if isinstance(value, int):
        return ir.AttrInt64(name, value)
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if isinstance(value, str):
        return ir.AttrString(name, value)
    return ir.AttrInt64s(name, value)

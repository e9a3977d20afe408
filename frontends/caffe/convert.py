"""What an operator converter is given, and the table of converters.

A converter is a function `(ctx: Context) -> Sequence[ir.Value]`: one value per top. It builds
standard ONNX nodes through `ctx`, giving every result its shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir

from qconvert import graph
from qconvert.errors import ModelFormatError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from qconvert.frontends.caffe.layers import Layer
    from qconvert.frontends.caffe.weights import F32, Blob
    from qconvert.report import Report

__all__ = ["CONVERTERS", "Attribute", "Context", "Shape", "Supply", "converts"]

Shape: TypeAlias = tuple[int, ...]
Attribute: TypeAlias = "int | float | str | Sequence[int] | Sequence[float]"
Converter: TypeAlias = "Callable[[Context], Sequence[ir.Value]]"

CONVERTERS: Final[dict[str, Converter]] = {}
"""Caffe layer type → converter."""

MAX_ELEMENTS: Final = (1 << 31) - 1
"""Caffe counts a blob's elements in an int (blob.cpp, Blob::Reshape)."""

MAX_AXES: Final = 32
"""blob.hpp, kMaxBlobAxes."""

MAX_MADE: Final = 1 << 24
"""Elements a converter may invent: constants of shapes, one-hot kernels, expanded tables."""

MAX_RANDOM: Final = 160_000_000
"""Elements of random weights in one network; VGG-19 has 144 million."""


def converts(*types: str) -> Callable[[Converter], Converter]:
    """Register a converter for Caffe layer types; a second registration fails at import."""

    def register(converter: Converter) -> Converter:
        for name in types:
            if name in CONVERTERS:
                raise ValueError(f"'{name}' has a converter already")
            CONVERTERS[name] = converter
        return converter

    return register


@dataclass(slots=True)
class Supply:
    """Where weights come from.

    Attributes:
        blobs: Layer name → trained blobs; None when there is no weights file.
        file: Its name, for messages.
        random: Fills in for trained weights; None: there must be trained ones.
    """

    blobs: Mapping[str, Sequence[Blob]] | None
    file: str
    random: np.random.Generator | None
    _spent: int = 0

    def draw(self, shape: Shape, *, positive: bool) -> F32 | None:
        """Random weights of a magnitude that keeps activations in range; None: too many."""
        count = math.prod(shape)
        self._spent += count
        if self.random is None or self._spent > MAX_RANDOM:
            return None
        values = self.random.standard_normal(count, dtype=np.float32).reshape(shape)
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 16
        values *= np.float32(math.sqrt(2 / max(fan_in, 1)))
        return np.abs(values) + np.float32(0.5) if positive else values


@dataclass(slots=True)
class Context:
    """One layer while it is converted: its parameters, inputs and weights, and a pen.

    Attributes:
        layer: The layer.
        inputs: Values of its bottoms.
        model: For model-local functions.
        report: For warnings.
        supply: Where weights come from.
        nodes: What has been written, in order.
        initializers: Constants that have been written.
        drawn: Whether random weights were asked for.
    """

    layer: Layer
    inputs: Sequence[ir.Value]
    model: ir.Model
    report: Report
    supply: Supply
    nodes: list[ir.Node] = field(default_factory=list)
    initializers: list[ir.Value] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name

    @property
    def params(self) -> Any:  # noqa: ANN401 - the message has a field per layer type
        """The parsed layer message."""
        return self.layer.params

    @property
    def x(self) -> ir.Value:
        """The first bottom."""
        return self.inputs[0]

    def shape(self, index: int = 0) -> Shape:
        """The shape of a bottom."""
        value = self.inputs[index]
        if value.shape is None or not value.shape.is_static():
            raise self.unsupported(
                f"{self.layer.type} reads blob '{self.layer.bottoms[index]}'",
                "how large that is depends on the data",
                "cut the network before this layer",
            )
        return graph.shape_of(value)

    # -- refusing ---------------------------------------------------------------------------

    def error(self, what: str, why: str = "", fix: str = "") -> ModelFormatError:
        """The file contradicts itself or Caffe's rules."""
        return ModelFormatError(what, at=self.layer.where, why=why, fix=fix)

    def unsupported(self, what: str, why: str = "", fix: str = "") -> UnsupportedError:
        """Valid Caffe that cannot be expressed."""
        return UnsupportedError(what, at=self.layer.where, why=why, fix=fix)

    def expect_inputs(self, least: int, most: int | None = None) -> None:
        """Check the number of bottoms; `most` None: as many as `least`."""
        most = least if most is None else most
        if not least <= len(self.inputs) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise self.error(
                f"{self.layer.type} has {len(self.inputs)} bottoms", f"it takes {wanted}"
            )

    def axis(self, axis: int, *, rank: int | None = None, end: bool = False) -> int:
        """A Caffe axis, which may count from the back, as an index; `end` allows one past it."""
        rank = len(self.shape()) if rank is None else rank
        index = axis + rank if axis < 0 else axis
        if not 0 <= index < rank + end:
            raise self.error(
                f"{self.layer.type} works on axis {axis}", f"its bottom has {rank} axes"
            )
        return index

    def checked(self, shape: Sequence[int]) -> Shape:
        """A result's shape, refused where Caffe could not hold it."""
        result = tuple(int(dim) for dim in shape)
        if any(dim < 1 for dim in result):
            raise self.error(
                f"{self.layer.type} would give the shape {list(result)}",
                f"from {[list(self.shape(index)) for index in range(len(self.inputs))]}",
                "give a larger input: --input-shape",
            )
        if len(result) > MAX_AXES or math.prod(result) > MAX_ELEMENTS:
            raise self.error(
                f"{self.layer.type} would give the shape {list(result[:MAX_AXES])}",
                "that is more than Caffe can hold",
            )
        return result

    # -- writing ----------------------------------------------------------------------------

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        shape: Sequence[int],
        part: str = "",
    ) -> ir.Value:
        """Write a node with one float output of `shape`.

        Args:
            op_type: ONNX operator.
            inputs: Its inputs.
            attributes: Its attributes.
            shape: Of the output.
            part: Empty for the node that stands for the layer; else a helper's name.
        """
        return self.ops(op_type, inputs, attributes, shapes=[shape], part=part)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        shapes: Sequence[Sequence[int]],
        part: str = "",
    ) -> Sequence[ir.Value]:
        """As `op`, for a node with several outputs."""
        node = ir.node(
            op_type,
            list(inputs),
            dict(attributes or {}),
            num_outputs=len(shapes),
            name=f"{self.name}/{part}" if part else self.name,
        )
        for value, shape in zip(node.outputs, shapes, strict=True):
            value.type = ir.TensorType(ir.DataType.FLOAT)
            value.shape = ir.Shape(self.checked(shape))
        return self.add(node)

    def add(self, node: ir.Node) -> Sequence[ir.Value]:
        """Write a finished node."""
        node.metadata_props[graph.PLACE] = self.layer.place
        self.nodes.append(node)
        return node.outputs

    def cast(self, value: ir.Value, to: ir.DataType, part: str) -> ir.Value:
        """Write a Cast."""
        result = self.op("Cast", [value], {"to": int(to)}, shape=graph.shape_of(value), part=part)
        result.type = ir.TensorType(to)
        return result

    def constant(self, part: str, array: npt.NDArray[Any]) -> ir.Value:
        """Write an initializer `<layer>.<part>`."""
        name = f"{self.name}.{part}"
        tensor = ir.Tensor(array, name=name)
        value = ir.val(name, tensor.dtype, tensor.shape, const_value=tensor)
        self.initializers.append(value)
        return value

    def scalar(self, part: str, number: float) -> ir.Value:
        """Write a float initializer of shape []."""
        return self.constant(part, np.array(number, np.float32))

    def integers(self, part: str, numbers: Sequence[int]) -> ir.Value:
        """Write an int64 initializer of shape [n]."""
        return self.constant(part, np.array(numbers, np.int64))

    def reshape(self, value: ir.Value, shape: Sequence[int], part: str = "") -> ir.Value:
        """Write a Reshape to a known shape."""
        target = self.integers(f"{part}_shape" if part else "shape", self.checked(shape))
        return self.op("Reshape", [value, target], shape=shape, part=part)

    # -- weights ----------------------------------------------------------------------------

    def expect_blobs(self, *counts: int) -> int:
        """Check how many blobs the layer was trained with, and give the number.

        Args:
            counts: Numbers that fit; the first is what random weights are made for.
        """
        trained = self._trained(counts[0])
        if trained is not None and len(trained) not in counts:
            wanted = " or ".join(map(str, counts))
            raise self.error(
                f"layer '{self.name}' has {len(trained)} blobs in {self.supply.file}",
                f"as the prototxt describes it, it has {wanted} (check bias_term)",
                "use the prototxt that belongs to these weights",
            )
        return counts[0] if trained is None else len(trained)

    def weight(self, index: int, shape: Sequence[int], *, positive: bool = False) -> F32:
        """A trained blob of the layer, in the shape Caffe's code gives it.

        Args:
            index: Which blob.
            shape: The shape it must have; legacy files are matched by element count.
            positive: Whether random stand-ins must be positive (variances).

        Returns:
            float32, finite; read-only.
        """
        wanted = self.checked(shape)
        trained = self._trained(index + 1)
        if trained is None:
            drawn = self.supply.draw(wanted, positive=positive)
            if drawn is None:
                raise self.error(
                    f"the weights would have the shape {list(wanted)}",
                    f"random weights end at {MAX_RANDOM} numbers in all",
                )
            return drawn
        blob = trained[index]
        if blob.data.size != math.prod(wanted):
            raise self.error(
                f"blob {index} of layer '{self.name}' has the shape {list(blob.shape)}",
                f"as the prototxt describes it, it has {list(wanted)}",
                "use the prototxt that belongs to these weights",
            )
        self._check_finite(blob, index)
        return blob.data.reshape(wanted)

    def _trained(self, least: int) -> Sequence[Blob] | None:
        """The layer's trained blobs, at least so many; None where weights are random."""
        if self.supply.blobs is None:
            if self.supply.random is not None:
                return None
            raise self.error(
                f"layer '{self.name}' needs weights",
                "no weights file was given",
                "give the .caffemodel as the second file",
            )
        if self.params.name not in ("", self.name):
            raise self.error(
                f"two layers are called '{self.params.name}'",
                "weights are found by the layer's name",
                "rename one of them, in the training net and in the weights as well",
            )
        found = self.supply.blobs.get(self.name, ())
        if len(found) < least:
            raise self.error(
                f"layer '{self.name}' has {len(found)} of its {least} blobs"
                if found
                else f"layer '{self.name}' has no weights in {self.supply.file}",
                "weights are matched by the layer's name",
                "use the prototxt that belongs to these weights",
            )
        return found

    def _check_finite(self, blob: Blob, index: int) -> None:
        """Refuse NaN and infinity; min and max carry a NaN along and take no memory."""
        if blob.data.size and not np.isfinite([blob.data.min(), blob.data.max()]).all():
            raise self.error(
                f"blob {index} of layer '{self.name}' holds NaN or infinity",
                f"training diverged, or {self.supply.file} is damaged",
                "use an earlier snapshot",
            )

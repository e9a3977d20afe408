"""The file: parsed, its tensors checked against their shapes, external data kept in its folder.

Nothing here trusts a number in the file: sizes are compared with the bytes that are there before
anything is allocated.
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from qconvert.errors import ModelFormatError, Problem, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Weights", "of_nodes", "parse", "tensors"]

_MESSAGE_LIMIT: Final = 2**31 - 1
_PIECE: Final = 1 << 22
_ALL_FIELDS: Final = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
_FLOATS: Final = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)
_TYPED_FIELDS: Final = {
    ir.DataType.FLOAT: "float_data",
    ir.DataType.COMPLEX64: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.COMPLEX128: "double_data",
    ir.DataType.INT64: "int64_data",
    ir.DataType.UINT32: "uint64_data",
    ir.DataType.UINT64: "uint64_data",
}
"""Where a type's elements are when they are not raw; those of all others are in `int32_data`."""


def parse(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file; external data stays where it is.

    Raises:
        ModelFormatError: If the file is missing, too large for protobuf, or no ONNX model.
    """
    at = str(path)
    try:
        size = path.stat().st_size
        if size > _MESSAGE_LIMIT:
            raise ModelFormatError(
                "the file is larger than a protobuf message can be",
                at=at,
                why=f"it has {size} bytes, the limit is 2 GiB",
                fix="save the model with external data",
            )
        model = onnx.ModelProto()
        if size:
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
                memoryview(content) as view,
            ):
                model.ParseFromString(view)  # type: ignore[arg-type]  # any buffer will do
    except OSError as error:
        raise ModelFormatError("the model cannot be read", at=at, why=str(error)) from error
    except DecodeError as error:
        raise ModelFormatError(
            "this is not an ONNX file",
            at=at,
            why=f"it does not parse as a protobuf message: {error}",
            fix="give the .onnx file an exporter wrote, whole",
        ) from error
    if not model.HasField("graph") or not model.opset_import or not model.graph.output:
        raise ModelFormatError(
            "this is not an ONNX model",
            at=at,
            why="it has no graph with outputs, or does not say which opset it is written for",
        )
    _require_names(model, at)
    return model


def _require_names(model: onnx.ModelProto, at: str) -> None:
    """Refuse inputs and outputs that cannot be told apart.

    Raises:
        ModelFormatError: If two outputs have one name, or a name is not Unicode.
    """
    for value in (*model.graph.input, *model.graph.output):
        name: object = value.name
        if not isinstance(name, str):  # bytes, where they are not UTF-8
            raise ModelFormatError(
                "this is not an ONNX file",
                at=at,
                why=f"a name in it is not Unicode: {name!r}",
                fix="give the .onnx file an exporter wrote, whole",
            )
    count = Counter(output.name for output in model.graph.output)
    twice = [f"'{name}'" for name in count if count[name] > 1]
    if twice:
        raise ModelFormatError(
            f"the model has several outputs called {', '.join(twice)}",
            at=at,
            why="an output is known by its name",
            fix="export it with every output listed once",
        )


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor in a model: initializers and attributes, subgraphs and functions included."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from of_nodes(graph.node)


def of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Every tensor in the attributes of nodes, subgraphs included."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _of_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _of_graph(graph)


class Weights:
    """The tensors of one model: checked, and as onnx-ir tensors that map their files.

    Args:
        path: The model file; external data must be in its folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path.parent
        self._sizes: dict[str, int] = {}

    def check(self, model: onnx.ModelProto) -> None:
        """Check every tensor of a model.

        Raises:
            ModelFormatError: If a tensor does not have the bytes its shape needs, holds a NaN, or
                lies outside the model's folder.
            UnsupportedError: If there are sparse initializers or tensors of strings.
        """
        if len(model.graph.sparse_initializer):
            names = [str(t.values.name) for t in model.graph.sparse_initializer]
            raise UnsupportedError.of(
                [Problem("a sparse initializer", f"tensor '{name}'") for name in names],
                who="qconvert",
                fix="export the model with dense weights",
            )
        for proto in tensors(model):
            self._check(proto)

    def tensor(self, proto: onnx.TensorProto) -> ir.TensorProtocol:
        """A checked tensor; one with external data maps its file when it is read."""
        if proto.data_location != onnx.TensorProto.EXTERNAL:
            return ir.serde.deserialize_tensor(proto)
        entries = {entry.key: entry.value for entry in proto.external_data}
        return ir.ExternalTensor(
            entries["location"],
            int(entries.get("offset", 0)),
            _needed(proto),
            ir.DataType(proto.data_type),
            shape=ir.Shape(proto.dims),
            name=proto.name,
            base_dir=str(self._folder),
        )

    def inline(self, proto: onnx.TensorProto) -> onnx.TensorProto:
        """A tensor with its data inside."""
        if proto.data_location != onnx.TensorProto.EXTERNAL:
            return proto
        copy = onnx.TensorProto(name=proto.name, data_type=proto.data_type, dims=proto.dims)
        entries = {entry.key: entry.value for entry in proto.external_data}
        with (self._folder / entries["location"]).open("rb") as file:
            file.seek(int(entries.get("offset", 0)))
            copy.raw_data = file.read(_needed(proto))
        return copy

    def _check(self, proto: onnx.TensorProto) -> None:
        """Check one tensor."""
        where = f"tensor '{proto.name}' in {self._path.name}"
        try:
            dtype = ir.DataType(proto.data_type)
        except ValueError:
            dtype = ir.DataType.UNDEFINED
        if dtype == ir.DataType.UNDEFINED:
            raise ModelFormatError(f"{where} has the unknown type {proto.data_type}")
        if dtype == ir.DataType.STRING:
            return  # only operators that are refused read strings
        if any(dim < 0 for dim in proto.dims):
            raise ModelFormatError(f"{where} has a negative axis", why=f"{list(proto.dims)}")
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            self._check_external(proto, where)
        else:
            _check_internal(proto, dtype, where)
        if dtype in _FLOATS:
            self._refuse_nan(proto, where)

    def _check_external(self, proto: onnx.TensorProto, where: str) -> None:
        """External data: inside the folder, and as long as the shape needs."""
        entries = {entry.key: entry.value for entry in proto.external_data}
        location = entries.get("location", "")
        if location not in self._sizes:
            self._sizes[location] = self._size(location, where)
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", _needed(proto)))
        except ValueError as error:
            raise ModelFormatError(f"{where}: damaged external data entry") from error
        needed = _needed(proto)
        if offset < 0 or length < needed or offset + needed > self._sizes[location]:
            raise ModelFormatError(
                f"{where} needs {needed} bytes of external data",
                at=str(self._folder / location),
                why=f"bytes {offset} to {offset + length} of {self._sizes[location]}",
                fix="copy the model together with the whole data file",
            )

    def _size(self, location: str, where: str) -> int:
        """Size of an external data file that is allowed to be read."""
        folder = self._folder.resolve()
        try:
            file = (folder / location).resolve()
            inside = bool(location) and file.is_relative_to(folder) and file != folder
        except (OSError, ValueError, RuntimeError):
            inside, file = False, folder
        if not inside:
            raise ModelFormatError(
                f"{where} has its data outside the model's folder",
                at=location,
                why="a model must not make its reader open other files",
                fix="put the data file beside the model",
            )
        try:
            if not file.is_file():
                raise FileNotFoundError(f"no such file: {location}")
            return file.stat().st_size
        except OSError as error:
            raise ModelFormatError(
                f"the external data of {where} cannot be read",
                at=str(self._folder / location),
                why=str(error),
                fix="copy the model together with its data file",
            ) from error

    def _refuse_nan(self, proto: onnx.TensorProto, where: str) -> None:
        """Read the numbers piece by piece: a NaN anywhere makes every output NaN."""
        flat = self.tensor(proto).numpy().reshape(-1)
        for start in range(0, flat.size, _PIECE):
            # A sum or maximum is NaN when an element is, and needs no mask in memory.
            if np.isnan(np.max(flat[start : start + _PIECE])):
                raise ModelFormatError(
                    f"{where} holds a NaN",
                    why="every output that depends on it would be NaN",
                    fix="export the model again from a checkpoint that did not diverge",
                )


def _needed(proto: onnx.TensorProto) -> int:
    """Bytes a tensor's elements take."""
    bits = ir.DataType(proto.data_type).bitwidth
    return (math.prod(proto.dims) * int(bits) + 7) // 8


def _check_internal(proto: onnx.TensorProto, dtype: ir.DataType, where: str) -> None:
    """Data inside the file: as long as the shape needs."""
    if proto.HasField("raw_data"):
        have, need, unit = len(proto.raw_data), _needed(proto), "bytes"
    else:
        field = _TYPED_FIELDS.get(dtype, "int32_data")
        strays = [other for other in _ALL_FIELDS if other != field and len(getattr(proto, other))]
        if strays:
            raise ModelFormatError(
                f"{where} has {strays[0]}", why=f"a tensor of {dtype} keeps its elements in {field}"
            )
        have = len(getattr(proto, field))
        need, unit = math.prod(proto.dims), "elements"
        if dtype in {ir.DataType.COMPLEX64, ir.DataType.COMPLEX128}:
            need *= 2
        if dtype.bitwidth < 8:
            need = -(-need * int(dtype.bitwidth) // 8)
    if have != need:
        raise ModelFormatError(
            f"{where} has {have} {unit}",
            why=f"its shape {list(proto.dims)} of {dtype} needs {need}",
            fix="the file is damaged: get a whole copy",
        )

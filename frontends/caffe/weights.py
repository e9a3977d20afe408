"""Reading a caffemodel: layer name → arrays.

Only names and blobs are read. Forks gave the numbers of layer parameters to different things, so
the binary's parameters mean nothing without knowing the fork; the prototxt's names do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from qconvert.errors import ModelFormatError
from qconvert.frontends.caffe import caffe_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["F32", "Blob", "read"]

F32: TypeAlias = npt.NDArray[np.float32]

MAX_BYTES: Final = (1 << 31) - 1  # protobuf's own limit
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_RAW: Final[Mapping[int, type[np.generic]]] = {
    pb.WeightsBlob.DOUBLE: np.float64,
    pb.WeightsBlob.FLOAT: np.float32,
    pb.WeightsBlob.FLOAT16: np.float16,
}


@dataclass(frozen=True, slots=True)
class Blob:
    """One trained array.

    Attributes:
        data: All its numbers, flat and read-only; float32.
        shape: As the file says; legacy files pad with ones on the left.
    """

    data: F32
    shape: tuple[int, ...]


def read(path: Path) -> dict[str, tuple[Blob, ...]]:
    """Read every layer's blobs.

    Returns:
        Layer name → its blobs, for layers that have some. Where a name comes twice, the first
        that has blobs counts.

    Raises:
        ModelFormatError: If the file is missing, truncated, or no caffemodel.
    """
    net = _parse(path)
    found: dict[str, tuple[Blob, ...]] = {}
    groups = (
        ((layer.name, layer.blobs) for layer in net.layer),
        (
            (layer.name or layer.layer.name, layer.blobs or layer.layer.blobs)
            for layer in net.layers
        ),
    )
    for group in groups:
        for name, blobs in group:
            if blobs and name not in found:
                found[name] = tuple(_blob(blob, name, path.name) for blob in blobs)
    if not found:
        raise ModelFormatError(
            "the caffemodel holds no weights",
            at=path.name,
            why=f"it has {len(net.layer) + len(net.layers)} layers, none with blobs",
            fix="check that it is a .caffemodel; a .solverstate holds no network",
        )
    return found


def _parse(path: Path) -> pb.WeightsNet:
    """The message in the file. Its bytes are gone when this returns."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelFormatError(
                "the caffemodel is too large",
                at=str(path),
                why=f"{size} bytes; Caffe's own format ends at {MAX_BYTES}",
            )
        data = path.read_bytes()
    except OSError as error:
        raise ModelFormatError(
            f"cannot read '{path.name}'", at=str(path), why=error.strerror or str(error)
        ) from error
    if data.startswith(_HDF5):
        raise ModelFormatError(
            "the weights are an HDF5 file",
            at=path.name,
            why="Caffe can write .caffemodel.h5; only the binary .caffemodel is read",
            fix="load it in Caffe and save it as .caffemodel",
        )
    net = pb.WeightsNet()
    try:
        net.ParseFromString(data)
    except DecodeError as error:
        raise ModelFormatError(
            "the caffemodel is damaged",
            at=path.name,
            why=f"its {size} bytes do not parse: truncated, or not a caffemodel",
            fix="download or copy it again",
        ) from error
    return net


def _blob(blob: pb.WeightsBlob, layer: str, file: str) -> Blob:
    """One blob, checked to be whole."""
    where = f"layer '{layer}' in {file}"
    try:
        data = _numbers(blob)
    except ValueError as error:
        raise ModelFormatError("a blob is damaged", at=where, why=str(error)) from error
    shape = _shape(blob, data.size)
    if min(shape, default=1) < 0 or math.prod(shape) != data.size:
        raise ModelFormatError(
            "a blob is damaged",
            at=where,
            why=f"its shape is {list(shape)} and it holds {data.size} numbers",
        )
    return Blob(data, shape)


def _shape(blob: pb.WeightsBlob, size: int) -> tuple[int, ...]:
    """The declared shape; the four legacy fields where there is no `shape`."""
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    legacy = (blob.num, blob.channels, blob.height, blob.width)
    return legacy if any(legacy) else (size,)


def _numbers(blob: pb.WeightsBlob) -> F32:
    """The numbers of a blob in whichever field they are.

    Raises:
        ValueError: If the bytes do not divide into numbers.
    """
    if blob.data:
        return _chunks(blob.data, np.dtype("<f4"))
    if blob.double_data:
        return _narrow(_chunks(blob.double_data, np.dtype("<f8")))
    if blob.raw_data:
        kind = _RAW.get(blob.raw_data_type)
        if kind is None:
            raise ValueError(f"its numbers have the type {blob.raw_data_type}")
        return _narrow(_chunks([blob.raw_data], np.dtype(kind).newbyteorder("<")))
    # Unpacked floats have another wire type and wait among the unknown fields.
    plain = pb.UnpackedBlob.FromString(blob.SerializeToString())
    numbers = plain.data or plain.double_data
    return np.fromiter(numbers, np.float32, len(numbers))


def _chunks(parts: Iterable[bytes], kind: np.dtype[Any]) -> npt.NDArray[Any]:
    """A packed field; writers may split it, readers must join it."""
    pieces = [np.frombuffer(part, kind) for part in parts]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _narrow(numbers: npt.NDArray[Any]) -> F32:
    """As float32; what does not fit becomes an infinity, which is refused."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)

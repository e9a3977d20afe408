"""Rows of `.npy` and `.npz` arrays, read one at a time.

An archive is never loaded whole: a thousand inputs cost as much memory as one. Sizes are checked
against the file before anything is allocated, and pickled objects are refused.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from qconvert.errors import ModelFormatError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["ArrayFile", "array_names", "open_array"]

_LONGEST_HEADER: Final = 10_000
_DAMAGE: Final = (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
)


def array_names(path: Path) -> list[str]:
    """Names of the arrays in a `.npy` or `.npz` file; the one of a `.npy` is called `x`.

    Raises:
        ModelFormatError: If the file is damaged.
    """
    if path.suffix.lower() == ".npy":
        return ["x"]
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except _DAMAGE as error:
        raise _damaged(path, None, error) from error
    return [name.removesuffix(".npy") for name in members if name.endswith(".npy")]


def open_array(path: Path, name: str) -> ArrayFile:
    """Look into one array; the file stays open only while rows are read.

    Raises:
        ModelFormatError: If the array is damaged, truncated, or not made of numbers.
    """
    return ArrayFile(path, None if path.suffix.lower() == ".npy" else f"{name}.npy")


class ArrayFile:
    """One array on disk, read row by row along its first axis.

    Args:
        path: The `.npy` or `.npz` file.
        member: Name within the `.npz`; None for a `.npy`.

    Raises:
        ModelFormatError: If the array is damaged, truncated, or not made of numbers.
    """

    def __init__(self, path: Path, member: str | None) -> None:
        self._path = path
        self._member = member
        self._stream: IO[bytes] | None = None
        self._next = 0
        try:
            with self._opened() as stream:
                self.shape, self.dtype, self._start = _header(stream)
                size = self._size()
        except _DAMAGE as error:
            raise _damaged(path, member, error) from error
        needed = self._start + math.prod(self.shape) * self.dtype.itemsize
        if size < needed:
            raise _damaged(path, member, ValueError(f"it has {size} bytes of {needed}"))
        if not self.shape:
            raise _damaged(path, member, ValueError("it is a single number, not an array"))

    def __len__(self) -> int:
        return self.shape[0]

    def row(self, index: int) -> npt.NDArray[np.generic]:
        """Row `index`, shape `shape[1:]`; cheapest in ascending order.

        Raises:
            ModelFormatError: If the data turn out to be damaged.
        """
        shape = self.shape[1:]
        length = math.prod(shape) * self.dtype.itemsize
        try:
            if self._stream is None or index < self._next:
                self.close()
                self._stream = self._opened()
                self._stream.seek(self._start)
                self._next = 0
            if index > self._next:
                self._stream.seek(self._start + index * length)
            data = self._stream.read(length)
        except _DAMAGE as error:
            raise _damaged(self._path, self._member, error) from error
        if len(data) < length:
            raise _damaged(self._path, self._member, ValueError(f"row {index} is cut short"))
        self._next = index + 1
        return np.frombuffer(data, self.dtype).reshape(shape)

    def close(self) -> None:
        """Let go of the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _opened(self) -> IO[bytes]:
        """The array's bytes from the start."""
        if self._member is None:
            return self._path.open("rb")
        # The member keeps the archive's file open for as long as it is open itself.
        with zipfile.ZipFile(self._path) as archive:
            return archive.open(self._member)

    def _size(self) -> int:
        """Bytes of the array with its header, as the file system or the archive states it."""
        if self._member is None:
            return self._path.stat().st_size
        with zipfile.ZipFile(self._path) as archive:
            return archive.getinfo(self._member).file_size


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic], int]:
    """Shape, type and the offset of the data.

    Raises:
        ValueError: If the array cannot be read row by row.
    """
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"it has .npy version {version[0]}.{version[1]}")
    try:
        shape, fortran, dtype = read(stream, max_header_size=_LONGEST_HEADER)
    except Exception as error:  # numpy evaluates the header as Python text: anything may come out
        raise ValueError(f"its header is damaged: {str(error)[:120]}") from error
    if dtype.kind not in "fiub":
        raise ValueError(f"it holds {dtype}, not numbers")
    if fortran and len(shape) > 1:
        raise ValueError("it is stored in Fortran order; save np.ascontiguousarray(x)")
    if any(side < 0 for side in shape):
        raise ValueError(f"its shape is {shape}")
    return shape, dtype, stream.tell()


def _damaged(path: Path, member: str | None, error: Exception) -> ModelFormatError:
    """The one error for a file that is not what its name says."""
    place = f"{path}, array '{member.removesuffix('.npy')}'" if member else str(path)
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ModelFormatError("the array file cannot be read", at=place, why=why)

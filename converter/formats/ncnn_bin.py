"""The byte format of ncnn's `.bin`: weight buffers one after the other, without a directory.

A *raw* buffer is float32. A *tagged* one begins with a 32-bit tag that says how its numbers are
stored, and is padded with zeros to a multiple of 4 bytes. Which of the two a weight is, is fixed
by its layer (see `qconvert.formats.ncnn_weights`); everything is little-endian.

Reference: Tencent/ncnn src/modelbin.cpp (ModelBinFromDataReader::load).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from qconvert.errors import ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TAG_FLOAT16", "TAG_FLOAT32", "TAG_INT8", "BinReader", "Buffer", "Stored", "write"]

F32: TypeAlias = npt.NDArray[np.float32]
Stored: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.int8]

TAG_FLOAT32: Final = 0
TAG_FLOAT16: Final = 0x01306B47
TAG_INT8: Final = 0x000D4B38
_TAG_SCALED: Final = 0x0002C056  # legacy: float32 again
_CODEBOOK: Final = 256

_TAG_OF: Final = {"float32": TAG_FLOAT32, "float16": TAG_FLOAT16, "int8": TAG_INT8}


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """One weight of one layer.

    Attributes:
        data: Any shape, C order. float32 when raw; float32, float16 or int8 when tagged.
        tagged: Whether a tag stands in front.
    """

    data: Stored
    tagged: bool

    def __post_init__(self) -> None:
        if self.data.dtype.name not in (_TAG_OF if self.tagged else ("float32",)):
            raise ValueError(f"a buffer cannot hold {self.data.dtype}")

    @property
    def size(self) -> int:
        """Bytes it takes in the file, tag and padding included."""
        return (4 if self.tagged else 0) + self.data.nbytes + -self.data.nbytes % 4

    def to_bytes(self) -> bytes:
        """The bytes in the file."""
        little = self.data.astype(self.data.dtype.newbyteorder("<"), copy=False)
        body = little.tobytes() + bytes(-self.data.nbytes % 4)
        if not self.tagged:
            return body
        return _TAG_OF[self.data.dtype.name].to_bytes(4, "little") + body


def write(buffers: Iterable[Buffer], stream: IO[bytes]) -> int:
    """Write buffers in order; returns the number of bytes."""
    return sum(stream.write(buffer.to_bytes()) for buffer in buffers)


class BinReader:
    """Reads buffers in the order in which the layers ask for them.

    Sizes come from the `.param` and may be lies: nothing is read or allocated before it is known
    that the file holds it.

    Args:
        content: The whole file (a memory map will do).
        origin: Its name, for messages.
    """

    def __init__(self, content: bytes | memoryview, *, origin: str = "model.bin") -> None:
        self._content = memoryview(content)
        self._origin = origin
        self.offset = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._content) - self.offset

    def raw(self, count: int, what: str) -> F32:
        """The next `count` float32, shape [count].

        Args:
            count: Number of values, >= 0.
            what: Whose weight it is, for messages: `bias of 'conv1'`.

        Raises:
            ModelFormatError: If the file is too short.
        """
        return np.frombuffer(self._take(4 * count, what), dtype="<f4").astype(np.float32)

    def tagged(self, count: int, what: str) -> F32 | npt.NDArray[np.int8]:
        """The next tagged buffer of `count` values, shape [count].

        Half floats and code books are expanded to float32; int8 stays int8.

        Raises:
            ModelFormatError: If the file is too short.
        """
        start = self.offset
        tag = int.from_bytes(self._take(4, what), "little")
        if tag == TAG_INT8:
            return np.frombuffer(self._padded(count, what), dtype=np.int8, count=count).copy()
        if tag == TAG_FLOAT16:
            half = np.frombuffer(self._padded(2 * count, what), dtype="<f2", count=count)
            return half.astype(np.float32)
        if tag in {TAG_FLOAT32, _TAG_SCALED}:
            return self.raw(count, what)
        if self.left < 4 * _CODEBOOK + count:
            raise ModelFormatError(
                f"the .bin does not hold the {what}",
                at=f"{self._origin}, byte {start}",
                why=f"0x{tag:08X} is no storage tag: the file does not belong to this .param",
                fix="give the .param and .bin that were written together",
            )
        book = self.raw(_CODEBOOK, what)
        return book[np.frombuffer(self._padded(count, what), dtype=np.uint8, count=count)]

    def done(self) -> None:
        """Make sure that nothing is left.

        Raises:
            ModelFormatError: If the layers have read less than the file holds.
        """
        if self.left:
            raise ModelFormatError(
                f"{self.left} bytes of the .bin belong to no layer",
                at=f"{self._origin}, byte {self.offset}",
                why="the .param reads less than the .bin holds",
                fix="give the .param and .bin that were written together",
            )

    def _padded(self, size: int, what: str) -> memoryview:
        """`size` bytes and the padding behind them."""
        return self._take(size + -size % 4, what)

    def _take(self, size: int, what: str) -> memoryview:
        """The next `size` bytes."""
        if size > self.left:
            raise ModelFormatError(
                f"the .bin ends before the {what}",
                at=f"{self._origin}, byte {self.offset}",
                why=f"{size} bytes are wanted, {self.left} are left",
                fix="the file is cut short, or belongs to another .param",
            )
        piece = self._content[self.offset : self.offset + size]
        self.offset += size
        return piece

"""Codes of any width to bits: two's complement, the first code in the lowest bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qconvert.formats.hardware.tiling import Codes

__all__ = ["Bytes", "Word", "blocks", "pack", "unpack"]

Bytes: TypeAlias = npt.NDArray[np.uint8]

_BLOCK: Final = 1 << 18
"""Codes that are turned into bits at once: eight bytes a bit would not fit for a large layer."""
_STORED: Final = (8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Word:
    """What a word of memory is made of.

    Attributes:
        bits: Width of a code, 1 to 64.
        signed: Whether codes are two's complement.
        lanes: Codes of a word.
    """

    bits: int
    signed: bool
    lanes: int = 1

    @property
    def width(self) -> int:
        """Bits of a word."""
        return self.bits * self.lanes

    @property
    def size(self) -> int:
        """Bytes that hold a word."""
        return -(-self.width // 8)

    @property
    def digits(self) -> int:
        """Hexadecimal digits of a word."""
        return -(-self.width // 4)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest type that holds a code."""
        width = next(size for size in _STORED if self.bits <= size)
        return np.dtype(f"{'i' if self.signed else 'u'}{width // 8}")

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest code."""
        if self.signed:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1


def blocks(codes: Codes, word: Word) -> Iterator[Codes]:
    """Codes [words, lanes] some words at a time, so that memory stays flat.

    Raises:
        ValueError: If a code does not fit the word.
    """
    low, high = word.range
    if codes.size and not (low <= int(codes.min()) and int(codes.max()) <= high):
        raise ValueError(f"codes {codes.min()}..{codes.max()} do not fit {word}")
    # A multiple of 8 words ends at a whole byte at every width.
    step = max(8, _BLOCK // word.lanes // 8 * 8)
    for first in range(0, len(codes), step):
        yield codes[first : first + step]


def pack(codes: Codes, word: Word) -> Bytes:
    """Bytes [words, word.size], little-endian; bits beyond the word are 0.

    Args:
        codes: [words, lanes], within `word.range`.
        word: Their width and number.
    """
    if word.bits in _STORED:
        plain = np.ascontiguousarray(codes, dtype=word.dtype.newbyteorder("<"))
        return plain.view(np.uint8).reshape(len(codes), word.size)
    wide = np.ascontiguousarray(codes, dtype=word.dtype.newbyteorder("<")).reshape(-1, 1)
    bits = np.unpackbits(wide.view(np.uint8), axis=1, count=word.bits, bitorder="little")
    return np.packbits(bits.reshape(len(codes), word.width), axis=1, bitorder="little")


def unpack(packed: Bytes, word: Word) -> Codes:
    """Codes [words, lanes] of `word.dtype` from bytes [words, word.size]: the inverse of `pack`.

    Raises:
        ValueError: If a bit beyond the word is set.
    """
    if word.bits in _STORED:
        flat = np.ascontiguousarray(packed).view(word.dtype.newbyteorder("<"))
        return flat.astype(word.dtype).reshape(len(packed), word.lanes)
    bits = np.unpackbits(packed, axis=1, bitorder="little")
    if bits[:, word.width :].any():
        raise ValueError(f"a word has more than {word.width} bits")
    fields = bits[:, : word.width].reshape(-1, word.bits)
    top = fields[:, -1:] if word.signed else np.zeros_like(fields[:, -1:])
    spread = np.repeat(top, 8 * word.dtype.itemsize - word.bits, axis=1)
    whole = np.packbits(np.concatenate([fields, spread], axis=1), axis=1, bitorder="little")
    return whole.view(word.dtype.newbyteorder("<")).astype(word.dtype).reshape(-1, word.lanes)

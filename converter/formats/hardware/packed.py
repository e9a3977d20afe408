"""`.bin`: the words one behind the other without a gap, for a processor or a DMA engine.

The first code is in the lowest bits of the first byte. Codes of 8, 16, 32 and 64 bits are plain
little-endian integers; others straddle bytes, and the last byte is filled up with zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.formats.hardware.hexadecimal import unreadable
from qconvert.formats.hardware.packing import Word, blocks, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qconvert.formats.hardware.tiling import Codes

__all__ = ["read", "write"]

_GROUP = 8
"""Codes that end at a whole byte at every width."""


def write(codes: Codes, word: Word, notes: Sequence[str]) -> Iterator[bytes]:
    """The file, piece by piece; there is no room for `notes`."""
    del notes
    for block in blocks(codes, word):
        flat = block.reshape(-1)
        whole = len(flat) - len(flat) % _GROUP
        for part in (flat[:whole].reshape(-1, _GROUP), flat[whole:].reshape(1, -1)):
            if part.size:
                yield pack(part, Word(word.bits, word.signed, part.shape[1])).tobytes()


def read(content: bytes, word: Word, *, depth: int, origin: str) -> Codes:
    """The codes [depth, lanes] of a file.

    Raises:
        ModelFormatError: If its length is not what these words take, or the bits that fill the
            last byte are not 0.
    """
    size = -(-depth * word.width // 8)
    if len(content) != size:
        raise unreadable(f"it has {len(content)} bytes, {size} are expected", origin)
    count, parts = depth * word.lanes, []
    plain = np.frombuffer(content, dtype=np.uint8)
    whole = count // _GROUP * word.bits
    for part, lanes in ((plain[:whole], _GROUP), (plain[whole:], count % _GROUP)):
        if lanes and part.size:
            packed = Word(word.bits, word.signed, lanes)
            try:
                parts.append(unpack(part.reshape(-1, packed.size), packed).reshape(-1))
            except ValueError as error:
                raise unreadable(str(error), origin) from None
    return np.concatenate(parts).reshape(depth, word.lanes)

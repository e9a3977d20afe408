"""`.mem`: what Verilog's `$readmemh` and Vivado's memories load.

    // conv1.weight [8, 3, 3, 3] O/8 I H W | O%8
    0102fd7f00ff1203

A word a line, two's complement, no addresses; the digits of a word that is not a multiple of four
bits wide begin with zeros.

Reference: IEEE 1800-2017, 21.4.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qconvert.formats.hardware.hexadecimal import digits, lines, read_words, unreadable
from qconvert.formats.hardware.packing import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qconvert.formats.hardware.packing import Word
    from qconvert.formats.hardware.tiling import Codes

__all__ = ["read", "write"]

_COMMENT: Final = re.compile(rb"//[^\n]*")


def write(codes: Codes, word: Word, notes: Sequence[str]) -> Iterator[bytes]:
    """The file, piece by piece.

    Args:
        codes: [words, lanes].
        word: What a word is made of.
        notes: Lines of comment.
    """
    yield b"".join(b"// %s\n" % note.encode("utf-8") for note in notes)
    for block in blocks(codes, word):
        yield lines(digits(block, word), b"\n").tobytes()


def read(content: bytes, word: Word, *, depth: int, origin: str) -> Codes:
    """The codes [depth, lanes] of a file.

    Raises:
        ModelFormatError: If it is damaged, has addresses, or holds something else.
    """
    tokens = _COMMENT.sub(b" ", content).replace(b"_", b"").split()
    if any(token.startswith(b"@") for token in tokens):
        raise unreadable("it has addresses (@), which are not read", origin)
    return read_words(tokens, word, depth=depth, origin=origin)

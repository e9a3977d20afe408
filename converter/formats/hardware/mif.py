"""`.mif`: Intel's memory initialization file, for Quartus.

    -- conv1.weight [8, 3, 3, 3] O/8 I H W | O%8
    WIDTH=64;
    DEPTH=27;
    ADDRESS_RADIX=HEX;
    DATA_RADIX=HEX;
    CONTENT BEGIN
    00 : 0102fd7f00ff1203;
    END;

Reference: Intel Quartus Prime help, "Memory Initialization File (.mif) Definition".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qconvert.formats.hardware.hexadecimal import addresses, digits, lines, read_words, unreadable
from qconvert.formats.hardware.packing import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qconvert.formats.hardware.packing import Word
    from qconvert.formats.hardware.tiling import Codes

__all__ = ["read", "write"]

_COMMENT: Final = re.compile(rb"--[^\n]*|%[^%]*%")
_WHOLE: Final = re.compile(
    rb"\s*WIDTH\s*=\s*(?P<width>\d{1,9})\s*;\s*DEPTH\s*=\s*(?P<depth>\d{1,18})\s*;"
    rb"\s*ADDRESS_RADIX\s*=\s*HEX\s*;\s*DATA_RADIX\s*=\s*HEX\s*;"
    rb"\s*CONTENT\s+BEGIN\s(?P<rows>.*)END\s*;\s*",
    re.DOTALL,
)


def write(codes: Codes, word: Word, notes: Sequence[str]) -> Iterator[bytes]:
    """The file, piece by piece.

    Args:
        codes: [words, lanes].
        word: What a word is made of.
        notes: Lines of comment.
    """
    yield b"".join(b"-- %s\n" % note.encode("utf-8") for note in notes)
    yield b"WIDTH=%d;\nDEPTH=%d;\n" % (word.width, len(codes))
    yield b"ADDRESS_RADIX=HEX;\nDATA_RADIX=HEX;\nCONTENT BEGIN\n"
    width, first = len(f"{max(len(codes) - 1, 0):x}"), 0
    for block in blocks(codes, word):
        place = addresses(first, len(block), width)
        yield lines(place, b" : ", digits(block, word), b";\n").tobytes()
        first += len(block)
    yield b"END;\n"


def read(content: bytes, word: Word, *, depth: int, origin: str) -> Codes:
    """The codes [depth, lanes] of a file.

    Raises:
        ModelFormatError: If it is damaged, its addresses do not count from 0, or it holds
            something else.
    """
    match = _WHOLE.fullmatch(_COMMENT.sub(b"", content))
    if match is None:
        raise unreadable("it is no .mif in hexadecimal", origin)
    if (int(match["width"]), int(match["depth"])) != (word.width, depth):
        size = f"{match['depth'].decode()} words of {match['width'].decode()} bits"
        raise unreadable(f"it is about {size}, not {depth} of {word.width}", origin)
    rows = match["rows"].replace(b":", b" : ").replace(b";", b" ; ").split()
    if len(rows) % 4 or set(rows[1::4]) - {b":"} or set(rows[3::4]) - {b";"}:
        raise unreadable("a row is not 'address : word;'", origin)
    try:
        counted = [int(token, 16) for token in rows[0::4]] == list(range(len(rows) // 4))
    except ValueError:
        counted = False
    if not counted:
        raise unreadable("its addresses do not count from 0", origin)
    return read_words(rows[2::4], word, depth=depth, origin=origin)

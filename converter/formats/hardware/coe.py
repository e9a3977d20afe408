"""`.coe`: the initial content of a block memory, for Vivado's generators.

    ; conv1.weight [8, 3, 3, 3] O/8 I H W | O%8
    memory_initialization_radix=16;
    memory_initialization_vector=
    0102fd7f00ff1203,
    00ff12030102fd7f;

Reference: AMD UG1580 and PG058, "COE file syntax".
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

_WHOLE: Final = re.compile(
    rb"\s*memory_initialization_radix\s*=\s*16\s*;"
    rb"\s*memory_initialization_vector\s*=(?P<words>[^;]*);\s*"
)
_COMMENT: Final = re.compile(rb"^[ \t]*;[^\n]*$", re.MULTILINE)


def write(codes: Codes, word: Word, notes: Sequence[str]) -> Iterator[bytes]:
    """The file, piece by piece.

    Args:
        codes: [words, lanes].
        word: What a word is made of.
        notes: Lines of comment.
    """
    yield b"".join(b"; %s\n" % note.encode("utf-8") for note in notes)
    yield b"memory_initialization_radix=16;\nmemory_initialization_vector="
    between = b"\n"
    for block in blocks(codes, word):
        text = lines(digits(block, word), b",\n").tobytes()
        yield between + text.removesuffix(b",\n")
        between = b",\n"
    yield b";\n"


def read(content: bytes, word: Word, *, depth: int, origin: str) -> Codes:
    """The codes [depth, lanes] of a file.

    Raises:
        ModelFormatError: If it is damaged, has another radix, or holds something else.
    """
    match = _WHOLE.fullmatch(_COMMENT.sub(b"", content))
    if match is None:
        raise unreadable("it is no .coe of radix 16", origin)
    tokens = match["words"].replace(b",", b" ").split()
    return read_words(tokens, word, depth=depth, origin=origin)

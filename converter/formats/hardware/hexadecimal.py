"""Words of lanes as hexadecimal text, digits for a whole block of words at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from qconvert.errors import ModelFormatError
from qconvert.formats.hardware.packing import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qconvert.formats.hardware.packing import Word
    from qconvert.formats.hardware.tiling import Codes

__all__ = ["Text", "addresses", "digits", "lines", "read_words", "unreadable"]

Text: TypeAlias = npt.NDArray[np.uint8]
"""ASCII characters, one row a line."""

_PAIRS: Final = np.frombuffer(
    "".join(f"{byte:02x}" for byte in range(256)).encode("ascii"), dtype=np.uint8
).reshape(256, 2)


def digits(codes: Codes, word: Word) -> Text:
    """The digits of words [words, lanes], highest first, as ASCII [words, word.digits]."""
    pairs = _PAIRS[pack(codes, word)[:, ::-1]].reshape(len(codes), 2 * word.size)
    return pairs[:, 2 * word.size - word.digits :]


def addresses(first: int, count: int, width: int) -> Text:
    """The numbers from `first` on, as ASCII [count, width]."""
    size = -(-width // 2)
    numbers = np.arange(first, first + count, dtype=">u8").view(np.uint8).reshape(-1, 8)
    return _PAIRS[numbers[:, 8 - size :]].reshape(count, 2 * size)[:, 2 * size - width :]


def lines(*columns: Text | bytes) -> Text:
    """Columns side by side; a text of bytes stands in every line."""
    rows = next(len(column) for column in columns if not isinstance(column, bytes))
    parts = [
        np.broadcast_to(np.frombuffer(column, np.uint8), (rows, len(column)))
        if isinstance(column, bytes)
        else column
        for column in columns
    ]
    return np.concatenate(parts, axis=1)


def read_words(tokens: Sequence[bytes], word: Word, *, depth: int, origin: str) -> Codes:
    """The codes [depth, lanes] that hexadecimal numbers hold.

    Args:
        tokens: One number a word; zeros in front may be missing.
        word: What a word is made of.
        depth: How many there should be.
        origin: The file's name, for errors.

    Raises:
        ModelFormatError: If their number or one of them does not fit.
    """
    if len(tokens) != depth:
        raise unreadable(f"it has {len(tokens)} words, {depth} are expected", origin)
    even = 2 * word.size
    if max(map(len, tokens), default=0) > even:
        raise unreadable(f"a word has more than {word.digits} digits", origin)
    full = min(map(len, tokens), default=even) == even
    padded = b"".join(tokens if full else [token.rjust(even, b"0") for token in tokens])
    try:
        plain = bytes.fromhex(padded.decode("ascii"))
    except ValueError:
        raise unreadable("a word is no hexadecimal number", origin) from None
    if len(plain) != depth * word.size:  # blanks inside: fromhex passes over them
        raise unreadable("a word is no hexadecimal number", origin)
    packed = np.frombuffer(plain, dtype=np.uint8).reshape(depth, word.size)
    try:
        return unpack(packed[:, ::-1], word)
    except ValueError as error:
        raise unreadable(str(error), origin) from None


def unreadable(why: str, origin: str) -> ModelFormatError:
    """The error for a file that does not hold what it should."""
    return ModelFormatError(
        "the file does not hold the words of this tensor",
        at=origin,
        why=why,
        fix="convert the model again",
    )

"""The formats by name: where their files lie in a bundle, and how they are written and read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from qconvert.formats.hardware import coe, mem, mif, packed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from qconvert.formats.hardware.packing import Word
    from qconvert.formats.hardware.tiling import Codes

__all__ = ["FORMATS", "Format"]


class _Write(Protocol):
    """Codes [words, lanes] to the pieces of a file."""

    def __call__(self, codes: Codes, word: Word, notes: Sequence[str]) -> Iterator[bytes]: ...


class _Read(Protocol):
    """A file to codes [depth, lanes]."""

    def __call__(self, content: bytes, word: Word, *, depth: int, origin: str) -> Codes: ...


@dataclass(frozen=True, slots=True)
class Format:
    """A format of files of words.

    Attributes:
        name: What `--emit` calls it; also its folder and its suffix.
        write: Writes a file.
        read: Reads one.
    """

    name: str
    write: _Write
    read: _Read


FORMATS: Final[Mapping[str, Format]] = {
    row.name: row
    for row in (
        Format("mem", mem.write, mem.read),
        Format("bin", packed.write, packed.read),
        Format("coe", coe.write, coe.read),
        Format("mif", mif.write, mif.read),
    )
}

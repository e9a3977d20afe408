"""C header and source with constant arrays, C99, for compilers of small processors."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qconvert.formats.hardware.tiling import Codes

__all__ = ["Array", "Section", "header", "source"]

_ROW: Final = 16
_BLOCK: Final = 1 << 16
_TABLED: Final = 16
"""Widths up to which the text of every number is made once and looked up."""


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """A constant array.

    Attributes:
        name: A C identifier.
        values: One axis, int8 to int64 or uint8 to uint64, not empty.
        note: What it is, one line.
    """

    name: str
    values: Codes
    note: str

    @property
    def declaration(self) -> str:
        """The array without its content."""
        return f"const {self.values.dtype.name}_t {self.name}[{self.values.size}]"


@dataclass(frozen=True, slots=True)
class Section:
    """What belongs together, e.g. a layer.

    Attributes:
        title: One line or more.
        defines: (macro, number or quoted text).
        arrays: The arrays.
    """

    title: str
    defines: Sequence[tuple[str, int | str]] = ()
    arrays: Sequence[Array] = field(default=())


def header(stem: str, sections: Sequence[Section]) -> Iterator[bytes]:
    """The text of `<stem>.h`, piece by piece."""
    guard = f"{stem.upper()}_H"
    yield f"#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n\n".encode("ascii")
    yield b'#ifdef __cplusplus\nextern "C" {\n#endif\n'
    for section in sections:
        yield b"\n" + _comment(section.title)
        for name, value in section.defines:
            yield f"#define {name} {_literal(value)}\n".encode("ascii")
        for array in section.arrays:
            yield _comment(array.note) + f"extern {array.declaration};\n".encode("ascii")
    yield b"\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n"


def source(stem: str, sections: Sequence[Section]) -> Iterator[bytes]:
    """The text of `<stem>.c`, piece by piece."""
    yield f'#include "{stem}.h"\n'.encode("ascii")
    for section in sections:
        for array in section.arrays:
            yield b"\n" + _comment(array.note)
            yield f"{array.declaration} = {{\n".encode("ascii")
            yield from _numbers(array.values)
            yield b"};\n"


def _comment(text: str) -> bytes:
    """A comment of ASCII; nothing in `text` ends it early, or is a comment or a trigraph in it."""
    plain = text.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")
    lines = plain.encode("ascii", "backslashreplace").split(b"\n")
    return b"/* " + b"\n * ".join(lines) + b" */\n"


def _literal(value: int | str) -> str:
    """A value in parentheses where it is negative, so that it stands in any expression."""
    if isinstance(value, str):
        return value
    return f"({value})" if value < 0 else str(value)


def _numbers(values: Codes) -> Iterator[bytes]:
    """The numbers of an array, sixteen a line."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if 8 * flat.dtype.itemsize > _TABLED:
        for first in range(0, flat.size, _ROW):
            row = flat[first : first + _ROW].tolist()
            yield "    {},\n".format(", ".join(map(str, row))).encode("ascii")
        return
    table = _texts(flat.dtype.name)
    plain = flat.view(f"u{flat.dtype.itemsize}")
    for first in range(0, flat.size, _BLOCK):
        rows = table[plain[first : first + _BLOCK]]
        whole = len(rows) - len(rows) % _ROW
        for part in (rows[:whole].reshape(-1, _ROW * rows.shape[1]), rows[whole:].reshape(1, -1)):
            if part.size:
                ends = np.full((len(part), 1), ord("\n"), np.uint8)
                yield np.concatenate([part, ends], axis=1).tobytes()


@cache
def _texts(kind: str) -> Codes:
    """ASCII of every number of a type with its comma, by its bit pattern, all of one width."""
    dtype, limits = np.dtype(kind), np.iinfo(kind)
    unsigned = np.arange(1 << (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
    width = max(len(str(limits.min)), len(str(limits.max))) + 1
    texts = "".join(f"{number:>{width}}," for number in unsigned.view(dtype).tolist())
    return np.frombuffer(texts.encode("ascii"), np.uint8).reshape(len(unsigned), width + 1)

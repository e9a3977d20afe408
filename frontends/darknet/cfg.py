"""The text of a Darknet .cfg: sections, and options with a type and a line.

The rules are those of Darknet's own reader (`read_cfg` in src/parser.c, `read_option` in
src/option_list.c, `strip` in src/utils.c): every blank in a line is dropped, lines that begin with
`#` or `;` are comments, and of two equal keys the first one counts. Numbers go through `atoi` and
`atof` there, which stop at the first character that does not belong to one; here whatever follows
must be a comment.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from qconvert.errors import ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qconvert.report import Report

__all__ = ["Option", "Section", "parse", "read"]

_LARGEST_FILE: Final = 4 << 20
_MOST_SECTIONS: Final = 10_000
_LONGEST_LIST: Final = 1 << 15
_LARGEST_INT: Final = 2**31 - 1
_INTEGER: Final = re.compile(r"[+-]?\d+")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Option:
    """The value of one key, and its line."""

    value: str
    line: int


@dataclass(slots=True)
class Section:
    """One `[name]` with its options.

    Attributes:
        name: As written between the brackets.
        file: Name of the .cfg, for messages.
        line: Where it begins, from 1.
        options: Key → value.
        used: Keys that were asked for.
    """

    name: str
    file: str
    line: int
    options: dict[str, Option] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    @property
    def place(self) -> str:
        """`yolo.cfg:12`."""
        return f"{self.file}:{self.line}"

    def integer(
        self, key: str, default: int, *, low: int = -_LARGEST_INT, high: int = _LARGEST_INT
    ) -> int:
        """A whole number in [low, high].

        Raises:
            ModelFormatError: If it is no number, or outside the range.
        """
        text = self._text(key)
        if text is None:
            return default
        return self._integer(key, text, low, high)

    def number(self, key: str, default: float) -> float:
        """A finite number.

        Raises:
            ModelFormatError: If it is something else.
        """
        text = self._text(key)
        return default if text is None else self._number(key, text)

    def text(self, key: str, default: str) -> str:
        """The value as written."""
        text = self._text(key)
        return default if text is None else text

    def integers(self, key: str) -> list[int]:
        """Whole numbers between commas; empty when the key is absent."""
        return [self._integer(key, item, -_LARGEST_INT, _LARGEST_INT) for item in self._items(key)]

    def numbers(self, key: str) -> list[float]:
        """Finite numbers between commas; empty when the key is absent."""
        return [self._number(key, item) for item in self._items(key)]

    def wrong(self, what: str, why: str, *, key: str = "", fix: str = "") -> ModelFormatError:
        """An error at this section, or at the line of `key`."""
        option = self.options.get(key)
        line = option.line if option else self.line
        return ModelFormatError(what, at=f"{self.file}:{line}", why=why, fix=fix)

    def _text(self, key: str) -> str | None:
        self.used.add(key)
        option = self.options.get(key)
        return option.value if option else None

    def _items(self, key: str) -> Sequence[str]:
        """The entries of a list; a comma at its end adds none."""
        text = (self._text(key) or "").split("#", 1)[0].rstrip(",")
        if text.count(",") >= _LONGEST_LIST:
            raise self.wrong(
                f"'{key}' in [{self.name}] is too long",
                f"a list has at most {_LONGEST_LIST} entries",
                key=key,
            )
        return text.split(",") if text else ()

    def _integer(self, key: str, text: str, low: int, high: int) -> int:
        match = _INTEGER.match(text)
        if match is None or not _nothing_after(text, match.end()):
            raise self.wrong(f"'{key}={text}' is not a whole number", f"[{self.name}]", key=key)
        digits = match.group()
        value = int(digits) if len(digits) < 20 else high + 1
        if not low <= value <= high:
            raise self.wrong(
                f"'{key}={text}' is out of range",
                f"[{self.name}] takes a value from {low} to {high}",
                key=key,
            )
        return value

    def _number(self, key: str, text: str) -> float:
        match = _NUMBER.match(text)
        value = float(match.group()) if match else math.nan
        if match is None or not _nothing_after(text, match.end()) or not math.isfinite(value):
            raise self.wrong(f"'{key}={text}' is not a number", f"[{self.name}]", key=key)
        return value


def _nothing_after(text: str, end: int) -> bool:
    """Whether only a fraction of zeros or a comment follows a number."""
    return re.fullmatch(r"(\.0*)?(#.*)?", text[end:]) is not None


def read(path: Path, report: Report) -> list[Section]:
    """The sections of a .cfg file, `[net]` first.

    Raises:
        ModelFormatError: If the file cannot be read, is no cfg, or is absurdly large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ModelFormatError(
            "the cfg file cannot be read", at=str(path), why=error.strerror or str(error)
        ) from error
    if len(content) > _LARGEST_FILE:
        raise ModelFormatError(
            "the cfg file is too large",
            at=str(path),
            why=f"a network description has at most {_LARGEST_FILE >> 20} MiB",
            fix="give the .cfg, not another file",
        )
    return parse(content.decode("utf-8-sig", errors="replace"), path.name, report)


def parse(text: str, file: str, report: Report) -> list[Section]:
    """The sections of a .cfg's text, `[net]` first.

    Args:
        text: The content.
        file: Name of the file, for messages.
        report: Is told of keys that come twice.

    Raises:
        ModelFormatError: If a line is neither section, option nor comment, or `[net]` is not first.
    """
    sections: list[Section] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = "".join(raw.split())
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            sections.append(Section(line.strip("[]"), file, number))
            if len(sections) > _MOST_SECTIONS:
                raise ModelFormatError(
                    "the network has too many layers",
                    at=f"{file}:{number}",
                    why=f"at most {_MOST_SECTIONS} sections are read",
                )
        elif not sections or "=" not in line:
            raise ModelFormatError(
                f"'{line[:40]}' is not a line of a cfg",
                at=f"{file}:{number}",
                why="a line is a [section], key=value after a section, or a comment",
            )
        else:
            _add(sections[-1], line, number, report)
    if not sections or sections[0].name not in {"net", "network"}:
        raise ModelFormatError(
            "this is not a Darknet cfg",
            at=sections[0].place if sections else file,
            why="its first section must be [net] or [network]",
            fix="give the .cfg of the network",
        )
    return sections


def _add(section: Section, line: str, number: int, report: Report) -> None:
    """Put `key=value` into a section; the first of two equal keys counts."""
    key, value = line.split("=", 1)
    first = section.options.setdefault(key, Option(value, number))
    if first.line != number and first.value != value:
        report.warn(
            f"{section.file}:{number}: '{line}' has no effect: "
            f"the same key stands in line {first.line}, and Darknet takes the first"
        )

"""Reading a prototxt: text in, parsed layers with their lines out.

The file is first cut into its `layer { ... }` blocks by a scanner that knows only braces, strings
and comments; `google.protobuf.text_format` then parses each block. So every layer has a line, one
bad layer does not hide the others, and sizes and nesting are bounded before anything is parsed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf import text_format

from qconvert.errors import ModelFormatError
from qconvert.frontends.caffe import caffe_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.message import Message

__all__ = ["Block", "Prototxt", "parse_block", "read"]

MAX_BYTES: Final = 2 << 20  # the largest published nets have 0.3 MB
MAX_LAYERS: Final = 10_000
MAX_DEPTH: Final = 16

_LONGEST: Final = 300  # of a parser's message, which quotes the file

_TOKEN: Final = re.compile(
    r"""\#[^\n]*                      # comment
    | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'
    | [A-Za-z_]\w*                    # field, or enum word
    | [{}<>\[\]:;,"']                 # a lone quote is an error for the parser to name
    | [^\s{}<>\[\]:;,"'\#]+           # number, or anything else
    """,
    re.VERBOSE | re.DOTALL,
)

M = TypeVar("M", bound="Message")


@dataclass(frozen=True, slots=True)
class Block:
    """One `layer { ... }`.

    Attributes:
        keyword: `layer` (V2) or `layers` (V1 and V0).
        line: Of the opening brace, from 1.
        text: What stands between the braces.
        kind: The word or string after the block's own `type:`; empty when there is none.
        nested: Whether the block holds a `layer { ... }` of its own, as V0 files do.
    """

    keyword: str
    line: int
    text: str
    kind: str
    nested: bool


@dataclass(frozen=True, slots=True)
class Prototxt:
    """A prototxt, cut and half parsed.

    Attributes:
        file: Its name, for messages.
        net: Everything that is not a layer.
        blocks: The layers, unparsed, in file order.
    """

    file: str
    net: pb.Net
    blocks: tuple[Block, ...]


def read(path: Path) -> Prototxt:
    """Read the topology file.

    Raises:
        ModelFormatError: If it is missing, not text, unreasonably large, or not a prototxt.
    """
    text = _content(path)
    blocks, rest = _cut(text, path.name)
    net = pb.Net()
    _parse(rest, net, path.name, 1)
    return Prototxt(path.name, net, tuple(blocks))


def parse_block(block: Block, into: M, file: str, *, lenient: bool = False) -> M:
    """Parse a block's text into an empty message.

    Args:
        block: The block.
        into: Gets the fields.
        file: For messages.
        lenient: Pass over fields nobody knows.

    Raises:
        ModelFormatError: If it does not parse; the message has the line in the file.
    """
    _parse(block.text, into, file, block.line, lenient=lenient)
    return into


def _content(path: Path) -> str:
    """The text of the file, bounded."""
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise ModelFormatError(
            f"cannot read '{path.name}'", at=str(path), why=error.strerror or str(error)
        ) from error
    if size > MAX_BYTES:
        raise ModelFormatError(
            "the prototxt is unreasonably large",
            at=str(path),
            why=f"{size} bytes; a topology has at most {MAX_BYTES}",
            fix="give the .prototxt first and the .caffemodel second",
        )
    if b"\0" in data:
        raise ModelFormatError(
            "the prototxt is not a text file",
            at=str(path),
            why="it holds zero bytes",
            fix="give the .prototxt first and the .caffemodel second",
        )
    # Comments are found in every encoding of the world; names are ASCII in practice.
    return data.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")


class _Scanner:
    """Cuts a text into layer blocks and the rest."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.blocks: list[Block] = []
        self.rest: list[str] = []
        self._depth = 0
        self._copied = 0  # everything before has gone to `rest` or to a block
        self._line = 1
        self._counted = 0
        self._keyword = ""  # 'layer' or 'layers' was read at the top and its block is to come
        self._keyword_at = 0
        self._listed = False  # inside `layer: [ ... ]`
        self._opened = (0, 1)  # where the block's text begins, and its line
        self._kind = ""
        self._nested = False
        self._words: tuple[str, str] = ("", "")  # the last two tokens

    def run(self) -> None:
        """Scan the whole text."""
        for match in _TOKEN.finditer(self.text):
            word = match[0]
            if word[0] == "#":
                continue
            if word in "{<":
                self._open(match.end())
            elif word in "}>":
                self._close(match.start())
            elif self._depth == 0:
                self._top(word, match.start(), match.end())
            elif self._depth == 1 and self._keyword:
                self._inside(word)
            self._words = (self._words[1], word)
        if self._depth:
            raise self._error("a block is not closed", self._opened[1], "the file is cut off")
        self.rest.append(self.text[self._copied :])

    def _line_at(self, position: int) -> int:
        """The line of `position`, which only grows."""
        self._line += self.text.count("\n", self._counted, position)
        self._counted = position
        return self._line

    def _error(self, what: str, line: int, why: str) -> ModelFormatError:
        return ModelFormatError(what, at=f"{self.file}:{line}", why=why)

    def _open(self, end: int) -> None:
        """A brace opens."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            why = f"messages are nested deeper than {MAX_DEPTH}"
            raise self._error("not a Caffe network", self._line_at(end), why)
        if self._depth == 1:
            self._opened = (end, self._line_at(end))
            self._kind = ""
            self._nested = False

    def _close(self, start: int) -> None:
        """A brace closes."""
        self._depth -= 1
        if self._depth < 0:
            raise self._error("a brace too many", self._line_at(start), "nothing is open here")
        if self._depth == 0 and self._keyword:
            begin, line = self._opened
            text = self.text[begin:start]
            self.blocks.append(Block(self._keyword, line, text, self._kind, self._nested))
            if len(self.blocks) > MAX_LAYERS:
                why = f"a network has at most {MAX_LAYERS}"
                raise self._error("too many layers", self._line_at(start), why)
            if not self._listed:
                self._skip(start + 1)

    def _top(self, word: str, start: int, end: int) -> None:
        """A word outside of every block."""
        if word in ("layer", "layers"):
            self._keyword, self._keyword_at = word, start
        elif word == "[":
            self._listed = bool(self._keyword)
        elif word == "]" and self._listed:
            self._listed = False
            self._skip(end)
        elif word in ",;" and self._copied and not self.text[self._copied : start].strip():
            self._copied = end  # a separator after a block
        elif word != ":" and not self._listed:
            self._keyword = ""

    def _skip(self, end: int) -> None:
        """Keep a layer out of the rest, but not its line breaks: lines stay true."""
        self.rest.append(self.text[self._copied : self._keyword_at])
        self.rest.append("\n" * self.text.count("\n", self._keyword_at, end))
        self._copied = end
        self._keyword = ""

    def _inside(self, word: str) -> None:
        """A word in a layer, outside of its messages."""
        if word == "layer":
            self._nested = True
        if self._words == ("type", ":") and not self._kind:
            self._kind = word.strip("\"'")


def _cut(text: str, file: str) -> tuple[list[Block], str]:
    """The layer blocks of `text`, and the rest with the same line numbers."""
    scanner = _Scanner(text, file)
    scanner.run()
    return scanner.blocks, "".join(scanner.rest)


def _parse(text: str, into: Message, file: str, line: int, *, lenient: bool = False) -> None:
    """text_format with our errors; `line` is where `text` begins in the file."""
    try:
        text_format.Parse(text, into, allow_unknown_field=lenient)
    except text_format.ParseError as error:
        place = line + (error.GetLine() or 1) - 1
        why = re.sub(r"^\d+:\d+ : ", "", str(error))
        why = why.replace("qconvert.caffe.", "")[:_LONGEST]
        raise ModelFormatError(
            "the prototxt has an error",
            at=f"{file}:{place}",
            why=why,
            fix="correct the line; a key of a Caffe fork that is not known cannot be passed over",
        ) from error
    except Exception as error:
        # Bad escapes, surrogates and numbers beyond every type leave text_format as they come.
        raise ModelFormatError(
            "the prototxt has an error", at=f"{file}:{line}", why=str(error)[:_LONGEST]
        ) from error

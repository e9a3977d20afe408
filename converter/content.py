"""What files hold: text, JSON, TOML, an array, a graph; or one error that names the file."""

from __future__ import annotations

import json
import math
import tokenize
import tomllib
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from qconvert.errors import ModelFormatError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

__all__ = [
    "DAMAGED_ARRAY",
    "map_array",
    "parse_json",
    "read_graph",
    "read_json",
    "read_text",
    "read_toml",
    "require_unicode",
]

DAMAGED_ARRAY: Final = (
    OSError,
    ValueError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
)
"""What comes out of numpy for a damaged `.npy`: it reads the header as Python text."""
_LONGEST: Final = 200


def require_unicode(path: Path) -> None:
    """Refuse a name that no text can hold: models, manifests and other runtimes are full of them.

    Raises:
        UsageError: If it is not Unicode.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        raise UsageError(
            "a name is not Unicode",
            at=shown,
            why="it cannot stand in a model or in a manifest",
            fix="rename it",
        ) from error


def read_text(
    path: Path, what: str, *, fix: str = "", encoding: str = "utf-8", limit: int = 1 << 30
) -> str:
    """The content of a text file, line ends as they are.

    Args:
        path: The file.
        what: Words for it, article included: `the label file`.
        fix: What to do when it cannot be read.
        encoding: `utf-8`, or `utf-8-sig` where editors may have left a mark.
        limit: Bytes from which it is something else.

    Raises:
        ModelFormatError: If it is missing, too large, or not text.
    """
    try:
        size = path.stat().st_size
        if size <= limit:
            return path.read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _unreadable(what, path, f"it is not UTF-8 text (line {line})", fix) from error
    except (OSError, ValueError) as error:
        raise _unreadable(what, path, _words(error), fix) from error
    raise _unreadable(what, path, f"it has {size} bytes", fix)


def read_json(path: Path, what: str, *, fix: str = "", limit: int = 1 << 30) -> Any:  # noqa: ANN401 - any JSON at all
    """The document in a JSON file; see `read_text` and `parse_json`."""
    return parse_json(read_text(path, what, fix=fix, limit=limit), path, what, fix=fix)


def parse_json(text: str, path: Path, what: str, *, fix: str = "") -> Any:  # noqa: ANN401 - any JSON at all
    """The document in a text that was read from `path`.

    Raises:
        ModelFormatError: If it is no JSON, or holds numbers that are not finite or texts that are
            not Unicode.
    """
    try:
        document = json.loads(text, parse_float=_finite, parse_constant=_finite)
        _require_whole(document, text)
    except RecursionError as error:
        raise _unreadable(what, path, "it is nested too deeply", fix) from error
    except ValueError as error:
        raise _unreadable(what, path, _words(error), fix) from error
    return document


def read_toml(path: Path, what: str, *, fix: str = "") -> dict[str, Any]:
    """The document in a TOML file; see `read_text`.

    Raises:
        ModelFormatError: If it is missing or no TOML.
    """
    text = read_text(path, what, fix=fix)
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise _unreadable(what, path, "it is nested too deeply", fix) from error
    except ValueError as error:
        raise _unreadable(what, path, _words(error), fix) from error


def map_array(path: Path, what: str, *, fix: str = "") -> npt.NDArray[Any]:
    """The array in a `.npy` file, mapped: a hostile header allocates nothing.

    Raises:
        ModelFormatError: If it is missing or damaged.
    """
    try:
        array: npt.NDArray[Any] = np.load(path, allow_pickle=False, mmap_mode="r")
    except DAMAGED_ARRAY as error:
        raise _unreadable(what, path, _words(error), fix) from error
    return array


def read_graph(path: Path, what: str, *, fix: str = "") -> ir.Model:
    """The graph in an ONNX file that we wrote.

    Raises:
        ModelFormatError: If it is missing or damaged.
    """
    try:
        return ir.load(path)
    except Exception as error:  # readers of protobuf messages and of graphs throw anything
        raise _unreadable(what, path, _words(error), fix) from error


def _finite(text: str) -> float:
    """A number of a document."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:_LONGEST]} is not a finite number")
    return number


def _require_whole(document: object, text: str) -> None:
    """Refuse halves of characters: they can neither be written nor be a path."""
    if "\\ud" not in text.lower():
        return
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text in it holds half a character") from error


def _words(error: Exception) -> str:
    """Why, in one line."""
    text = getattr(error, "strerror", None) or str(error) or "it is damaged"
    return str(text).splitlines()[0][:_LONGEST]


def _unreadable(what: str, path: Path, why: str, fix: str) -> ModelFormatError:
    return ModelFormatError(f"{what} cannot be read", at=str(path), why=why, fix=fix)

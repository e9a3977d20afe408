"""Class labels beside a set of pictures: `name index` per line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qconvert.content import read_text
from qconvert.errors import CalibrationError, ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["label_of", "read"]

_LINE = re.compile(r"(?P<name>\S.*?)(?:\s*,\s*|\s+)(?P<index>\d{1,9})\s*")


def read(path: Path) -> dict[str, int]:
    """Read a label file.

    Args:
        path: Text; per line a file name and a class index, separated by blanks or a comma. Empty
            lines are passed over.

    Returns:
        File name as written → class index.

    Raises:
        ModelFormatError: If the file cannot be read, or a line is something else.
    """
    lines = read_text(path, "the label file", encoding="utf-8-sig").splitlines()
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ModelFormatError(
                f"not a label: {line.strip()[:80]!r}",
                at=f"{path}:{number}",
                why="a line holds a file name and a class index",
                fix="for example: n02504458_African_elephant.jpg 386",
            )
        labels[match["name"]] = int(match["index"])
    return labels


def label_of(labels: Mapping[str, int], path: Path, source: Path) -> int:
    """The label of one picture, by its path as written or by its bare name.

    Args:
        labels: What `read` returned.
        path: The picture.
        source: The label file, for the error.

    Raises:
        CalibrationError: If there is none.
    """
    for key in (str(path), path.as_posix(), path.name):
        if key in labels:
            return labels[key]
    raise CalibrationError(
        f"'{path.name}' has no label",
        at=str(source),
        why=f"none of its {len(labels)} lines names this file",
        fix="add a line for it, or take the picture out of the data",
    )

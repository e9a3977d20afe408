"""Option texts to values: `320x240`, `104,117,123`, `data=1,3,224,224`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qconvert.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["numbers", "pairs", "scales", "shapes", "size", "widths", "words"]


def size(text: str) -> list[int]:
    """`320x240` (width x height) as [320, 240]."""
    match = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*", text)
    if match is None:
        raise UsageError(
            f"--size {text} is not a size", fix="write width x height, e.g. --size 320x240"
        )
    return [int(match[1]), int(match[2])]


def numbers(option: str, text: str) -> list[float]:
    """`104,117,123` as three numbers."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"{option} {text} is not a list of numbers", fix=f"write e.g. {option} 104,117,123"
        ) from None


def pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` texts, split at the last `=`."""
    result = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not equals or not name or not value:
            raise UsageError(f"{option} {text} has no value", fix=f"write {option} NAME=VALUE")
        result[name] = value
    return result


def shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`data=1,3,224,224` texts."""
    result = {}
    for name, value in pairs("--input-shape", texts).items():
        try:
            result[name] = tuple(int(part) for part in re.split(r"[,x]", value))
        except ValueError:
            raise UsageError(
                f"--input-shape {name}={value} is not a shape",
                fix="write e.g. --input-shape data=1,3,224,224",
            ) from None
    return result


def scales(texts: Sequence[str]) -> dict[str, float]:
    """`data=0.0078125` texts."""
    result = {}
    for name, value in pairs("--input-scale", texts).items():
        try:
            result[name] = float(value)
        except ValueError:
            raise UsageError(
                f"--input-scale {name}={value} is not a number",
                fix="write e.g. --input-scale data=0.0078125",
            ) from None
    return result


def words(texts: Sequence[str]) -> tuple[str, ...]:
    """`cache,ppq` texts as single words, in order."""
    return tuple(word.strip() for text in texts for word in text.split(",") if word.strip())


def widths(texts: Sequence[str]) -> dict[str, int]:
    """`conv1=16` texts."""
    result = {}
    for name, value in pairs("--layer-bits", texts).items():
        if not value.isdecimal():
            raise UsageError(
                f"--layer-bits {name}={value} is not a width",
                fix="write e.g. --layer-bits conv1=16",
            )
        result[name] = int(value)
    return result

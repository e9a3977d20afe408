"""`example.py` and `example.cpp`: the bundle in use, with its own names and preprocessing.

Pictures are resized by ncnn's own functions, which agree with `qconvert.dataset.resize` to one grey
level. A network whose preprocessing is not known, or that has several inputs, reads arrays.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from string import Template
from typing import TYPE_CHECKING, Final

from qconvert.backends.ncnn import example_cpp, example_py

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qconvert.dataset.preprocessing import Preprocessing

__all__ = ["Ends", "write_examples"]

_PIXELS: Final = {"rgb": "PIXEL_RGB", "bgr": "PIXEL_RGB2BGR", "gray": "PIXEL_GRAY"}


@dataclass(frozen=True, slots=True)
class Ends:
    """What goes in and comes out.

    Attributes:
        inputs: Blob → its ncnn dimensions, outermost first.
        outputs: Blob → the shape the model gives it, [1, ...]; -1 for rows of detections.
        indices: Input blobs that hold int32 numbers.
        first_labels: Blob → what it calls the first class, where it holds detections.
    """

    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    first_labels: Mapping[str, int] = field(default_factory=dict)
    indices: frozenset[str] = frozenset()


def write_examples(folder: Path, ends: Ends, preprocessing: Preprocessing | None) -> list[str]:
    """Write both examples.

    Args:
        folder: The bundle.
        ends: Names and shapes.
        preprocessing: How pictures become the input; None where that is not known.

    Returns:
        The files' names.
    """
    picture = _picture_input(ends, preprocessing)
    pieces = {
        "example.py": _python(ends, preprocessing if picture else None),
        "example.cpp": _cpp(ends, preprocessing if picture else None),
    }
    for name, text in pieces.items():
        (folder / name).write_text(text, encoding="utf-8")
    return list(pieces)


def _picture_input(ends: Ends, preprocessing: Preprocessing | None) -> str | None:
    """The one input that takes pictures."""
    if preprocessing is None or len(ends.inputs) != 1:
        return None
    [(name, shape)] = ends.inputs.items()
    return name if shape == preprocessing.shape[1:] else None


def _python(ends: Ends, preprocessing: Preprocessing | None) -> str:
    """The text of `example.py`."""
    shared = {
        "outputs": repr(dict(ends.outputs)),
        "options": example_py.SEVERAL if len(ends.outputs) > 1 else "",
        "labels": repr({name: first for name, first in ends.first_labels.items() if first}),
    }
    if preprocessing is None:
        inputs = repr({name: tuple(shape) for name, shape in ends.inputs.items()})
        return Template(example_py.ARRAYS).substitute(
            shared, inputs=inputs, indices=repr(tuple(sorted(ends.indices)))
        )
    return Template(example_py.PICTURE).substitute(
        shared | _numbers(preprocessing),
        input=repr(next(iter(ends.inputs))),
        mode=repr("L" if preprocessing.color == "gray" else "RGB"),
        pixels=_PIXELS[preprocessing.color],
        mean=repr(list(preprocessing.mean)),
        norm=repr(list(preprocessing.norm)),
        fit=Template(example_py.FITS[preprocessing.resize]).substitute(_numbers(preprocessing)),
        swap=example_py.SWAP if preprocessing.transpose else "",
    )


def _cpp(ends: Ends, preprocessing: Preprocessing | None) -> str:
    """The text of `example.cpp`."""
    outputs = ", ".join(_quoted(name) for name in ends.outputs)
    shared = {
        "outputs": outputs,
        "options": example_cpp.SEVERAL if len(ends.outputs) > 1 else "",
        "labels": example_cpp.LABELS if any(ends.first_labels.values()) else "",
    }
    if preprocessing is None:
        reads = "".join(
            Template(example_cpp.READ).substitute(
                name=_quoted(name),
                index=index,
                sizes=", ".join(str(size) for size in _from_the_inside(shape)),
            )
            for index, (name, shape) in enumerate(ends.inputs.items())
        )
        return Template(example_cpp.ARRAYS).substitute(shared, reads=reads, count=len(ends.inputs))
    return Template(example_cpp.PICTURE).substitute(
        shared | _numbers(preprocessing),
        input=_quoted(next(iter(ends.inputs))),
        pixels=_PIXELS[preprocessing.color],
        mean=", ".join(_float(value) for value in preprocessing.mean),
        norm=", ".join(_float(value) for value in preprocessing.norm),
        source=example_cpp.GRAY if preprocessing.color == "gray" else example_cpp.COLOR,
        fit=Template(example_cpp.FITS[preprocessing.resize]).substitute(_numbers(preprocessing)),
        swap=example_cpp.SWAP if preprocessing.transpose else "",
    )


def _numbers(preprocessing: Preprocessing) -> dict[str, str]:
    """Sizes, as they are before x and y are swapped."""
    width, height = preprocessing.size[::-1] if preprocessing.transpose else preprocessing.size
    short = preprocessing.resize_short
    if short is None:
        short = round(256 / 224 * max(width, height))
    return {
        "width": str(width),
        "height": str(height),
        "short": str(short),
        "fill": str(preprocessing.fill),
    }


def _from_the_inside(shape: Sequence[int]) -> tuple[int, ...]:
    """Width first, as ncnn's constructors have it."""
    return tuple(reversed(shape))


def _float(value: float) -> str:
    """A number as a C++ float literal."""
    return f"{float(value)!r}f"


def _quoted(text: str) -> str:
    """A C++ string literal."""
    return json.dumps(text, ensure_ascii=False)

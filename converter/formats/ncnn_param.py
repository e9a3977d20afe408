"""The text format of ncnn's `.param`: records, reading, printing. No graphs, no weights.

    7767517
    <layers> <blobs>
    <type> <name> <inputs> <outputs> <input blob>... <output blob>... <id>=<value>...

A value is an int when its literal has neither point nor exponent, else a float; ids from -23300
downwards are arrays that begin with their length. Newer files also write arrays as `3=1,2,3` and
texts as `6="0w,0h*0c"`. We read all of these and write the oldest form of each.

Reference: Tencent/ncnn src/paramdict.cpp (ParamDict::load_param), src/net.cpp (Net::load_param).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from typing_extensions import override

from qconvert.errors import ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ARRAY_BASE",
    "FEATURE_MASK",
    "MAGIC",
    "MAX_NAME",
    "SHAPE_HINTS",
    "Layer",
    "Network",
    "Number",
    "Param",
    "parse",
]

MAGIC: Final = "7767517"
MAX_NAME: Final = 255
"""Characters a layer type, layer name or blob name may have (scanf's %255s)."""

SHAPE_HINTS: Final = 30
"""Reserved parameter of every layer: five ints (dims, w, h, d, c) for each output."""

FEATURE_MASK: Final = 31
"""Reserved parameter of every layer: bits that turn kernels off (64: Winograd)."""

ARRAY_BASE: Final = -23300
_MAX_ID: Final = 31
_MAX_TEXT: Final = 255
_MAX_LITERAL: Final = 15
_LIMIT: Final = 64 << 20

_FLOAT_END: Final = float(2**128 - 2**103)

_INT: Final = re.compile(r"[+-]?\d+")
_FLOAT: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_PARAM: Final = re.compile(r'(-?\d{1,6})=("[^"]*"|\S*)(?:\s+|$)')

# Layer has methods called int and float; its signatures need other names for the types.
_Int: TypeAlias = int
_Float: TypeAlias = float

Number: TypeAlias = int | float
Param: TypeAlias = Number | str | tuple[Number, ...]
"""A value. Floats stand for float32; a tuple is an array."""


def _literal(value: Number) -> str:
    """A number as every version of ncnn reads it: at most 15 characters, floats recognizable.

    Older scanners stop after 15 characters and collect the digits behind the point in 32 bits,
    so a float has at most eight of them unless it is short anyway.
    """
    if isinstance(value, int):
        return str(value)
    number = np.float32(value)
    if not np.isfinite(number):
        raise ValueError(f"{value} cannot be written to a .param")
    short = repr(float(str(number)))  # the shortest digits that give this float32
    fraction = short.partition("e")[0].partition(".")[2]
    if len(fraction) <= 8 and len(short) <= _MAX_LITERAL:
        return short
    return f"{number:.8e}"


@dataclass(frozen=True, slots=True)
class Layer:
    """One line of a `.param`.

    Attributes:
        kind: ncnn's layer type, e.g. `Convolution`.
        name: Unique among the layers of a network.
        inputs: Blobs it reads.
        outputs: Blobs it makes.
        params: Id (0 to 31) → value.
        place: `file:line` where it was read; for messages only.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[int, Param] = field(default_factory=dict)
    place: str = field(default="", compare=False)

    @override
    def __str__(self) -> str:
        head = f"{self.kind:<24} {self.name:<24} {len(self.inputs)} {len(self.outputs)}"
        params = (_assignment(key, value) for key, value in sorted(self.params.items()))
        return " ".join([head, *self.inputs, *self.outputs, *params])

    def int(self, key: _Int, default: _Int) -> _Int:
        """The integer parameter `key`.

        Raises:
            ModelFormatError: If it is not an integer.
        """
        value = self.params.get(key, default)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, int):
            return value
        raise self._bad(key, "an integer")

    def float(self, key: _Int, default: _Float) -> _Float:
        """The number `key`, as a float.

        Raises:
            ModelFormatError: If it is not a number.
        """
        value = self.params.get(key, default)
        if isinstance(value, int | float):
            return float(value)
        raise self._bad(key, "a number")

    def ints(self, key: _Int) -> tuple[_Int, ...]:
        """The array of integers `key`; empty when it is not given.

        Raises:
            ModelFormatError: If it is not an array of integers.
        """
        values = self.floats(key)
        if not all(value.is_integer() for value in values):
            raise self._bad(key, "an array of integers")
        return tuple(int(value) for value in values)

    def floats(self, key: _Int) -> tuple[_Float, ...]:
        """The array of numbers `key`; empty when it is not given.

        Raises:
            ModelFormatError: If it is not an array.
        """
        values = self.params.get(key, ())
        if not isinstance(values, tuple):
            raise self._bad(key, "an array")
        return tuple(float(value) for value in values)

    def text(self, key: _Int) -> str:
        """The text `key`; empty when it is not given.

        Raises:
            ModelFormatError: If it is not a text.
        """
        value = self.params.get(key, "")
        if not isinstance(value, str):
            raise self._bad(key, "a text")
        return value

    def _bad(self, key: _Int, wanted: str) -> ModelFormatError:
        """The error for a parameter of the wrong kind."""
        return ModelFormatError(
            f"parameter {key} of {self.kind} '{self.name}' is not {wanted}",
            at=self.place,
            why=f"it is {self.params.get(key)!r}",
        )


def _assignment(key: int, value: Param) -> str:
    """`<id>=<value>`, arrays in the form that every version reads."""
    if isinstance(value, str):
        return f'{key}="{value}"'
    if isinstance(value, tuple):
        elements = ",".join([str(len(value)), *(_literal(element) for element in value)])
        return f"{ARRAY_BASE - key}={elements}"
    return f"{key}={_literal(value)}"


@dataclass(frozen=True, slots=True)
class Network:
    """A whole `.param`.

    Attributes:
        layers: In the order in which ncnn runs them.
    """

    layers: tuple[Layer, ...]

    @property
    def blobs(self) -> tuple[str, ...]:
        """Every blob name once, in order of first mention."""
        names = (name for layer in self.layers for name in (*layer.inputs, *layer.outputs))
        return tuple(dict.fromkeys(names))

    @override
    def __str__(self) -> str:
        head = f"{MAGIC}\n{len(self.layers)} {len(self.blobs)}\n"
        return head + "".join(f"{layer}\n" for layer in self.layers)


def parse(text: str, *, origin: str = "model.param") -> Network:
    """Read a `.param`.

    Args:
        text: The whole file.
        origin: Its name, for messages.

    Returns:
        The layers, each with its place. Every blob is made once, before it is read, and read at
        most once; layer names are unique; the counts of the header hold.

    Raises:
        ModelFormatError: If any of that is not so, with the line.
    """
    if len(text) > _LIMIT:
        raise ModelFormatError("the .param is too large", at=origin, why=f"{len(text)} characters")
    lines = text.splitlines()
    if not lines or lines[0].strip() != MAGIC:
        raise ModelFormatError(
            "not an ncnn .param file",
            at=f"{origin}:1",
            why=f"a .param begins with {MAGIC}",
            fix="files older than 2017, and binary .param.bin files, must be converted again",
        )
    layer_count, blob_count = _counts(lines, origin)
    numbered = [(n, line) for n, line in enumerate(lines[2:], start=3) if line.strip()]
    network = Network(tuple(_layer(line, f"{origin}:{n}") for n, line in numbered))
    if len(network.layers) != layer_count:
        raise ModelFormatError(
            f"the header announces {layer_count} layers, the file has {len(network.layers)}",
            at=f"{origin}:2",
            why="the file is cut short, or was edited without its header",
        )
    if len(network.blobs) > blob_count:
        raise ModelFormatError(
            f"the header announces {blob_count} blobs, the layers name {len(network.blobs)}",
            at=f"{origin}:2",
            why="ncnn would write outside its blob table",
        )
    _check_names(network.layers)
    _check_flow(network.layers)
    return network


def _counts(lines: Sequence[str], origin: str) -> tuple[int, int]:
    """Layer and blob count of the second line."""
    words = lines[1].split() if len(lines) > 1 else []
    if len(words) != 2 or not all(re.fullmatch(r"\d{1,9}", word) for word in words):
        raise ModelFormatError(
            "the .param has no layer and blob count",
            at=f"{origin}:2",
            why="the second line holds two numbers",
        )
    return int(words[0]), int(words[1])


def _layer(line: str, place: str) -> Layer:
    """One layer line."""
    words = line.split(maxsplit=4)
    if len(words) < 4 or not all(re.fullmatch(r"\d{1,9}", word) for word in words[2:4]):
        raise ModelFormatError(
            "not a layer line",
            at=place,
            why="it should begin with type, name, input count and output count",
        )
    kind, name, inputs, outputs = words[0], words[1], int(words[2]), int(words[3])
    rest = words[4] if len(words) > 4 else ""
    # Splitting no further than the blobs keeps texts with spaces whole. The count comes from the
    # file: never split more often than there are characters.
    total = inputs + outputs
    pieces = rest.split(maxsplit=min(total, len(rest)))
    blobs, tail = pieces[:total], "".join(pieces[total:])
    if len(blobs) < total or any("=" in blob and _PARAM.match(blob) for blob in blobs):
        raise ModelFormatError(
            f"{kind} '{name}' announces {total} blobs", at=place, why="the line names fewer"
        )
    if any(len(word) > MAX_NAME for word in (kind, name, *blobs)):
        raise ModelFormatError(f"a name is longer than {MAX_NAME} characters", at=place)
    return Layer(
        kind, name, tuple(blobs[:inputs]), tuple(blobs[inputs:]), _params(tail, place), place
    )


def _params(text: str, place: str) -> dict[int, Param]:
    """The `id=value` pairs at the end of a layer line."""
    params: dict[int, Param] = {}
    position = 0
    text = text.strip()
    while position < len(text):
        match = _PARAM.match(text, position)
        if match is None:
            raise ModelFormatError(
                f"'{text[position : position + 40]}' is not a parameter",
                at=place,
                why="parameters have the form id=value",
            )
        position = match.end()
        written = int(match[1])
        array = written <= ARRAY_BASE
        key = ARRAY_BASE - written if array else written
        if not 0 <= key <= _MAX_ID or key in params:
            why = f"ids go from 0 to {_MAX_ID}, each once"
            raise ModelFormatError(f"parameter id {written} is not valid", at=place, why=why)
        params[key] = _value(match[2], place, array=array)
    return params


def _value(text: str, place: str, *, array: bool) -> Param:
    """One value: number, array or text."""
    if array:
        length, *elements = text.split(",")
        if not re.fullmatch(r"\d{1,9}", length) or int(length) != len(elements):
            raise ModelFormatError(
                f"an array announces {length[:20]} elements and has {len(elements)}", at=place
            )
        return tuple(_number(element, place) for element in elements)
    if text[:1] == '"' or text[:1].isalpha():
        content = text.strip('"')
        if len(content) > _MAX_TEXT:
            raise ModelFormatError(f"a text is longer than {_MAX_TEXT} characters", at=place)
        return content
    if "," in text:
        elements = text.removesuffix(",").split(",")
        return tuple(_number(element, place) for element in elements)
    return _number(text, place)


def _number(text: str, place: str) -> Number:
    """An int, or a float when the literal has a point or an exponent."""
    if len(text) <= 64:
        if _INT.fullmatch(text) and -(2**31) <= int(text) < 2**32:
            return int(text)
        # Up to half a step above the largest float32 rounds down to it.
        decimal = _FLOAT.fullmatch(text) and not _INT.fullmatch(text)
        if decimal and abs(float(text)) < _FLOAT_END:
            return float(np.float32(float(text)))
    raise ModelFormatError(
        f"'{text[:40]}' is not a number", at=place, why="ints have 32 bits, floats are finite"
    )


def _check_names(layers: Sequence[Layer]) -> None:
    """Refuse two layers of one name."""
    counts = Counter(layer.name for layer in layers)
    for layer in layers:
        if counts[layer.name] > 1:
            raise ModelFormatError(f"two layers are called '{layer.name}'", at=layer.place)


def _check_flow(layers: Sequence[Layer]) -> None:
    """Refuse a blob that is read before it is made, made twice, or read twice."""
    made: set[str] = set()
    read: set[str] = set()
    for layer in layers:
        for blob in layer.inputs:
            if blob not in made:
                raise ModelFormatError(
                    f"'{layer.name}' reads blob '{blob}', which no layer before it makes",
                    at=layer.place,
                )
            if blob in read:
                raise ModelFormatError(
                    f"blob '{blob}' has two readers",
                    at=layer.place,
                    why="a blob in ncnn has one; a Split layer makes copies",
                )
            read.add(blob)
        for blob in layer.outputs:
            if blob in made:
                raise ModelFormatError(f"blob '{blob}' is made twice", at=layer.place)
            made.add(blob)

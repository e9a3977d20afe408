"""ncnn's calibration table: records, writing, reading.

    <layer>_param_0 <scale of weight channel 0> <scale of weight channel 1> ...
    <layer> <scale of the input>

A scale here is the reciprocal of ours: `code = round(real * scale)`. ncnn2int8 quantizes a layer
if and only if its input row exists; it takes spaces only as separators, stops without a word at an
empty line, and never counts.

Reference: Tencent/ncnn tools/quantize/ncnn2int8.cpp (read_int8scale_table).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from qconvert.errors import ModelFormatError
from qconvert.formats.ncnn_param import MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qconvert.formats.ncnn_param import Layer

__all__ = ["DYNAMIC", "WEIGHTS", "Row", "Table", "can_hold", "expected_counts", "parse"]

WEIGHTS: Final = "_param_"
"""What makes a row a weight row: it stands between the layer's name and the number."""

DYNAMIC: Final = frozenset({"Embed", "MultiHeadAttention", "RNN", "LSTM", "GRU"})
"""Layers that have weight rows alone: ncnn finds the scales of their inputs as it runs."""

_LIMIT: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One line.

    Attributes:
        key: Layer name, or `<layer>_param_<n>`.
        scales: ncnn's scales (code = real * scale), at least one.
        line: Where it was read; 0 when it was not.
    """

    key: str
    scales: tuple[float, ...]
    line: int = 0

    @property
    def layer(self) -> str:
        """The layer it is for."""
        return self.key.partition(WEIGHTS)[0]

    @property
    def is_weight(self) -> bool:
        """Whether it holds weight scales."""
        return WEIGHTS in self.key

    @override
    def __str__(self) -> str:
        return " ".join([self.key, *(f"{scale:.9g}" for scale in self.scales)])


@dataclass(frozen=True, slots=True)
class Table:
    """A whole table: weight rows first, then input rows, each in layer order."""

    rows: tuple[Row, ...]

    @classmethod
    def of(cls, weights: Mapping[str, Sequence[float]], inputs: Mapping[str, float]) -> Table:
        """A table from ncnn's scales.

        Args:
            weights: By `<layer>_param_<n>`.
            inputs: By layer.

        Raises:
            ValueError: If a scale is not positive and finite, or a name cannot stand in a table.
        """
        rows = [Row(key, tuple(map(float, scales))) for key, scales in weights.items()]
        rows += [Row(name, (float(scale),)) for name, scale in inputs.items()]
        for row in rows:
            if not all(math.isfinite(scale) and scale > 0 for scale in row.scales):
                raise ValueError(f"the scales of '{row.key}' are not positive and finite")
            if not can_hold(row.layer):
                raise ValueError(f"'{row.layer}' cannot stand in a table")
        return cls(tuple(rows))

    @override
    def __str__(self) -> str:
        return "".join(f"{row}\n" for row in self.rows)


def can_hold(name: str) -> bool:
    """Whether a layer of this name can have rows."""
    return (
        bool(name)
        and WEIGHTS not in name
        and len(name) <= MAX_NAME - 8
        and not any(letter.isspace() for letter in name)
    )


def parse(text: str, *, origin: str = "model.table") -> Table:
    """Read a table. Empty lines are passed over; `ncnn_lint` complains about them.

    Raises:
        ModelFormatError: If a line holds no name or something that is not a number.
    """
    if len(text) > _LIMIT:
        raise ModelFormatError("the table is too large", at=origin, why=f"{len(text)} characters")
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        key, *words = line.split() or [""]
        if not key:
            continue
        try:
            scales = tuple(float(word) for word in words)
        except ValueError:
            raise ModelFormatError(
                f"the row of '{key[:60]}' holds something that is not a number",
                at=f"{origin}:{number}",
                why="a row is a layer name and its scales, separated by spaces",
            ) from None
        if not scales:
            raise ModelFormatError(f"the row of '{key[:60]}' has no scale", at=f"{origin}:{number}")
        rows.append(Row(key, scales, number))
    return Table(tuple(rows))


def expected_counts(layer: Layer) -> dict[str, int]:
    """Weight rows of a layer: suffix `_param_<n>` → number of scales; empty if it takes none."""
    match layer.kind:
        case "Convolution" | "InnerProduct":
            return {"_param_0": layer.int(0, 0)}
        case "ConvolutionDepthWise":
            return {"_param_0": layer.int(7, 1)}
        case "Embed":
            return {"_param_0": 1}
        case "MultiHeadAttention":
            size = layer.int(0, 0)
            return {"_param_0": size, "_param_1": size, "_param_2": size, "_param_3": 1}
        case "LSTM" | "GRU" | "RNN":
            gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[layer.kind]
            hidden = layer.int(3, layer.int(0, 0)) if layer.kind == "LSTM" else layer.int(0, 0)
            count = gates * hidden * (2 if layer.int(2, 0) == 2 else 1)
            return {"_param_0": count, "_param_1": count}
        case _:
            return {}

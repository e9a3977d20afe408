"""ncnn's calibration table: records, writing, reading, and what is wrong with a foreign one.

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

    from qconvert.formats.ncnn_param import Layer, Network

__all__ = ["Finding", "Row", "Table", "can_hold", "expected_counts", "lint", "parse"]

_WEIGHTS: Final = "_param_"
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
        return self.key.partition(_WEIGHTS)[0]

    @property
    def is_weight(self) -> bool:
        """Whether it holds weight scales."""
        return _WEIGHTS in self.key

    @override
    def __str__(self) -> str:
        return " ".join([self.key, *(f"{scale:.9g}" for scale in self.scales)])


@dataclass(frozen=True, slots=True)
class Table:
    """A whole table: weight rows first, then input rows, each in layer order."""

    rows: tuple[Row, ...]

    @classmethod
    def of(cls, weights: Mapping[str, Sequence[float]], inputs: Mapping[str, float]) -> Table:
        """A table from ncnn's scales by layer name.

        Raises:
            ValueError: If a scale is not positive and finite, or a name cannot stand in a table.
        """
        rows = [Row(f"{name}_param_0", tuple(map(float, s))) for name, s in weights.items()]
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
        and _WEIGHTS not in name
        and len(name) <= MAX_NAME - 8
        and not any(letter.isspace() for letter in name)
    )


def parse(text: str, *, origin: str = "model.table") -> Table:
    """Read a table. Empty lines are passed over; `lint` complains about them.

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


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a table.

    Attributes:
        line: 1-based.
        what: What is wrong.
        effect: What ncnn2int8 makes of it.
    """

    line: int
    what: str
    effect: str

    @override
    def __str__(self) -> str:
        return f"line {self.line}: {self.what}: {self.effect}"


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


def lint(text: str, network: Network) -> list[Finding]:
    """Everything in a table that ncnn2int8 would take otherwise than its author meant.

    Args:
        text: The table.
        network: The float model it is for.

    Returns:
        Findings in order of lines; empty when the table does what it says.

    Raises:
        ModelFormatError: If it cannot be read as a table at all.
    """
    findings = _lint_text(text)
    table = parse(text)
    layers = {layer.name: layer for layer in network.layers}
    seen: set[str] = set()
    weights = {row.layer for row in table.rows if row.is_weight}
    for row in table.rows:
        findings += [Finding(row.line, *what) for what in _lint_row(row, layers, seen, weights)]
        seen.add(row.key)
    return sorted(findings, key=lambda finding: finding.line)


def _lint_text(text: str) -> list[Finding]:
    """What only shows in the raw text."""
    findings = []
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip() and number < len(lines):
            findings.append(Finding(number, "an empty line", "every row below it is ignored"))
        if "\t" in line:
            findings.append(
                Finding(number, "a tab", "only spaces separate: the first scale is lost")
            )
    return findings


def _lint_row(
    row: Row, layers: Mapping[str, Layer], seen: set[str], weights: set[str]
) -> list[tuple[str, str]]:
    """What is wrong with one row."""
    found = []
    if row.key in seen:
        found.append((f"'{row.key}' comes twice", "one of the rows is ignored"))
    if row.key in layers and row.is_weight:
        found.append(
            (f"layer name '{row.key}' contains '{_WEIGHTS}'", "its input row is taken for weights")
        )
    if any(not math.isfinite(scale) or scale <= 0 for scale in row.scales):
        found.append(("a scale is zero, negative or not finite", "the layer's results are garbage"))
    layer = layers.get(row.layer)
    if layer is None:
        return [*found, (f"no layer is called '{row.layer}'", "the row has no effect")]
    counts = expected_counts(layer)
    if not counts:
        what = f"{layer.kind} '{row.layer}' has no int8 form"
        return [*found, (what, "the row has no effect")]
    if row.is_weight:
        return found + _lint_weights(row, layer, counts)
    return found + _lint_input(row, weights)


def _lint_weights(row: Row, layer: Layer, counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Whether a weight row has a weight, and as many scales as that takes."""
    wanted = counts.get(row.key[len(row.layer) :])
    if wanted is None:
        return [(f"{layer.kind} has no weight '{row.key}'", "the row has no effect")]
    if wanted == len(row.scales):
        return []
    what = f"'{row.key}' has {len(row.scales)} scales, {layer.kind} takes {wanted}"
    return [(what, "the .bin that ncnn2int8 writes does not load")]


def _lint_input(row: Row, weights: set[str]) -> list[tuple[str, str]]:
    """Whether an input row holds one scale and has its weight row."""
    found = []
    if len(row.scales) != 1:
        found.append((f"'{row.key}' has {len(row.scales)} input scales", "only one is used"))
    if row.layer not in weights:
        what = f"'{row.key}' has no weight row"
        found.append((what, "all later layers of its type stay float"))
    return found

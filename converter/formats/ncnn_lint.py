"""What is wrong with a calibration table that somebody else wrote.

ncnn2int8 reads a table without a complaint whatever it holds, and writes a model that is float in
part, does not load, or computes garbage. Every rule here is one way in which it takes a table
otherwise than its author meant.

Reference: Tencent/ncnn tools/quantize/ncnn2int8.cpp (read_int8scale_table, quantize_*,
fuse_requantize), commit a4d2ea1d4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from typing_extensions import override

from qconvert.formats.ncnn_param import MAX_NAME
from qconvert.formats.ncnn_table import DYNAMIC, WEIGHTS, Row, expected_counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from qconvert.formats.ncnn_param import Layer, Network

__all__ = ["Finding", "lint"]

_LONGEST_LINE: Final = 10_240_000 - 1
_CHAINS: Final = frozenset({"Convolution", "ConvolutionDepthWise"})


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong with a table.

    Attributes:
        line: 1-based.
        what: What is wrong.
        effect: What ncnn2int8 makes of it.
        fix: What to do about it.
    """

    line: int
    what: str
    effect: str
    fix: str

    @override
    def __str__(self) -> str:
        return f"line {self.line}: {self.what}: {self.effect}; {self.fix}"


@dataclass(slots=True)
class _Table:
    """A table as ncnn2int8 sees it, and what was noticed on the way.

    Attributes:
        layers: Layer name → layer of the model.
        rows: Key → the row that counts, which is the last one.
        findings: So far.
    """

    layers: Mapping[str, Layer]
    rows: dict[str, Row] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, line: int, what: str, effect: str, fix: str) -> None:
        """One more finding."""
        self.findings.append(Finding(line, what, effect, fix))

    def weight_rows(self, name: str) -> list[str]:
        """Suffixes (`_param_0`, ...) of the weight rows of a layer."""
        starts = f"{name}{WEIGHTS}"
        return [key[len(name) :] for key in self.rows if key.startswith(starts)]


def lint(text: str, network: Network) -> list[Finding]:
    """Everything in a table that ncnn2int8 would take otherwise than its author meant.

    Args:
        text: The table.
        network: The float model it is for.

    Returns:
        Findings in order of lines; empty when the table does what it says.
    """
    table = _Table({layer.name: layer for layer in network.layers})
    for number, line in _lines(text, table):
        _read_row(number, line, table)
    for row in table.rows.values():
        _check_row(row, table)
    _check_order(network, table)
    _check_chains(network, table)
    return sorted(table.findings)


def _lines(text: str, table: _Table) -> Iterator[tuple[int, str]]:
    """The lines that hold something, as C reads them: only a line feed ends one."""
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    for number, raw in enumerate(lines, start=1):
        line = raw.rstrip("\r")
        if not line.strip(" "):
            table.add(
                number, "an empty line", "every row below it is ignored without a word", "remove it"
            )
            continue
        if len(line.encode(errors="replace")) >= _LONGEST_LINE:
            table.add(
                number,
                f"a line of {len(line)} characters",
                f"it is cut at {_LONGEST_LINE}",
                "write fewer digits",
            )
        yield number, line


def _read_row(number: int, line: str, table: _Table) -> None:
    """One row as numbers; what is no number is a finding."""
    if "\t" in line:
        table.add(
            number,
            "a tab",
            "only spaces separate: what follows the tab up to the next space is lost",
            "put a space there",
        )
    key, *words = line.replace("\t", " ").split()
    if len(key.encode(errors="replace")) > MAX_NAME:
        table.add(
            number,
            f"a name of {len(key)} characters",
            f"it is cut at {MAX_NAME} and matches no layer",
            "rename the layer",
        )
    scales = []
    for word in words:
        scale = _number(word)
        if scale is None:
            table.add(
                number,
                f"'{word[:40]}' is not a number",
                "the scale in front of it is taken twice",
                "write a number, or remove the row",
            )
            return
        scales.append(scale)
    if not scales:
        table.add(number, f"'{key[:60]}' has no scale", "ncnn2int8 reads beyond it", "remove it")
        return
    if key in table.rows:
        first = table.rows[key].line
        table.add(
            number,
            f"'{key}' comes twice, first in line {first}",
            "this row replaces the other",
            "keep one",
        )
    table.rows[key] = Row(key, tuple(scales), number)


def _number(word: str) -> float | None:
    """A number as C's scanf reads it into a float; None when it is none."""
    if "_" in word or not word.isascii():  # Python takes 1_000 and digits of other scripts
        return None
    try:
        with np.errstate(over="ignore"):
            return float(np.float32(word))
    except ValueError:
        return None


def _check_row(row: Row, table: _Table) -> None:
    """What is wrong with one row."""
    _check_scales(row, table)
    if row.is_weight and row.key in table.layers:
        table.add(
            row.line,
            f"the layer's own name '{row.key}' contains '{WEIGHTS}'",
            "its input row is taken for weights: the layer stays float",
            "rename the layer in the .param",
        )
        return
    layer = table.layers.get(row.layer)
    if layer is None:
        close = _closest(row.layer, table.layers)
        table.add(
            row.line,
            f"no layer is called '{row.layer}'",
            "the row has no effect",
            f"write '{close}'" if close else "take the names from the .param",
        )
        return
    counts = expected_counts(layer)
    if not counts:
        what = f"{layer.kind} '{row.layer}' is not quantized by rows of a table"
        table.add(row.line, what, "the row has no effect", "remove it")
    elif row.is_weight:
        _check_weights(row, layer, counts, table)
    else:
        _check_input(row, layer, table)


def _check_scales(row: Row, table: _Table) -> None:
    """A scale is 127 / threshold: positive and finite."""
    for position, scale in enumerate(row.scales):
        if math.isfinite(scale) and scale > 0:
            continue
        place = f"scale {position + 1} of '{row.key}'" if row.is_weight else f"'{row.key}'"
        if math.isnan(scale) or scale < 0:
            effect = "every code is garbage"
        elif scale == 0:
            effect = "every code is 0: the channel gives its bias alone"
        else:
            effect = "0 * inf is not a number, and everything else saturates"
        fix = "a channel of zeros takes 1; a scale that %f printed as 0 needs more digits (%.9g)"
        table.add(row.line, f"{place} is {scale:g}", effect, fix)
        return


def _check_weights(row: Row, layer: Layer, counts: Mapping[str, int], table: _Table) -> None:
    """Whether a weight row has a weight, and as many scales as that takes."""
    wanted = counts.get(row.key[len(row.layer) :])
    if wanted is None:
        what = f"{layer.kind} '{layer.name}' has no weight '{row.key}'"
        table.add(row.line, what, "the row has no effect", f"it has {', '.join(counts)}")
    elif wanted != len(row.scales):
        grouped = layer.kind == "ConvolutionDepthWise" and len(row.scales) == layer.int(0, 0)
        table.add(
            row.line,
            f"'{row.key}' has {len(row.scales)} scales, {layer.kind} takes {wanted}",
            "the .bin that ncnn2int8 writes is shifted: it fails to load at a later layer",
            "give one per group, the smallest of its channels" if grouped else "calibrate again",
        )


def _check_input(row: Row, layer: Layer, table: _Table) -> None:
    """Whether an input row holds one scale, has a use, and has its weight row."""
    if layer.kind in DYNAMIC:
        what = f"{layer.kind} '{layer.name}' has an input row"
        table.add(row.line, what, "its inputs are quantized as it runs: no effect", "remove it")
        return
    if len(row.scales) != 1:
        what = f"'{row.key}' has {len(row.scales)} input scales"
        table.add(
            row.line,
            what,
            "all of them are written, one is read: the .bin is shifted",
            "keep the first",
        )
    if not table.weight_rows(layer.name):
        table.add(
            row.line,
            f"'{row.key}' has no row '{row.key}_param_0'",
            f"it and every later {layer.kind} stay float, and the exit code is 0",
            "add the row; to keep the layer in float, remove this row as well",
        )


def _check_order(network: Network, table: _Table) -> None:
    """Layers with weight rows alone are all quantized, up to the first one without its rows."""
    missing: dict[str, str] = {}
    for layer in network.layers:
        if layer.kind not in DYNAMIC:
            continue
        have = table.weight_rows(layer.name)
        complete = set(expected_counts(layer)) <= set(have)
        if have and (layer.kind in missing or not complete):
            first = missing.get(layer.kind, layer.name)
            lines = [table.rows[layer.name + suffix].line for suffix in have]
            table.add(
                min(lines),
                f"{layer.kind} '{first}' lacks weight rows",
                f"'{layer.name}' stays float: the first {layer.kind} without rows ends them all",
                f"give every {layer.kind} its rows",
            )
        if not complete:
            missing.setdefault(layer.kind, layer.name)


def _check_chains(network: Network, table: _Table) -> None:
    """A convolution that hands int8 to several readers takes the scale of the first one."""
    split = {name: layer.inputs[0] for layer in network.layers if layer.kind == "Split"
             for name in layer.outputs}  # fmt: skip
    made = {name: layer for layer in network.layers for name in layer.outputs}
    readers: dict[str, list[Layer]] = {}
    for layer in network.layers:
        if layer.kind != "Split":
            for blob in layer.inputs:
                readers.setdefault(split.get(blob, blob), []).append(layer)
    for blob, layers in readers.items():
        source = made.get(blob)
        if source is None or len(layers) < 2 or not _are_integer((source, *layers), table):
            continue
        rows = [table.rows[layer.name] for layer in layers]
        odd = next((row for row in rows if row.scales[0] != rows[0].scales[0]), None)
        if odd is not None:
            table.add(
                odd.line,
                f"'{odd.key}' and '{rows[0].key}' read '{blob}' with different scales",
                f"'{source.name}' writes its codes for one of them: the other is off by their "
                f"ratio, {odd.scales[0] / rows[0].scales[0]:.3g}",
                "give both the smaller scale",
            )


def _are_integer(layers: Iterable[Layer], table: _Table) -> bool:
    """Whether ncnn2int8 quantizes all of these convolutions."""
    return all(
        layer.kind in _CHAINS and layer.name in table.rows and table.weight_rows(layer.name)
        for layer in layers
    )


def _closest(name: str, known: Iterable[str]) -> str:
    """The known name that differs in case or in separators only; empty when there is none."""
    plain = _plain(name)
    return next((other for other in known if _plain(other) == plain), "")


def _plain(name: str) -> str:
    """Letters and digits of a name."""
    return "".join(letter for letter in name.lower() if letter.isalnum())

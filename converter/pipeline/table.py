"""`verify --table`: a calibration table, held against the ncnn model it is for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qconvert.bundle import Manifest
from qconvert.content import read_text
from qconvert.errors import UsageError, VerificationError
from qconvert.formats import ncnn_param, ncnn_table
from qconvert.formats.ncnn_lint import lint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qconvert.formats.ncnn_param import Layer, Network
    from qconvert.formats.ncnn_table import Row

__all__ = ["CheckedTable", "check_table"]


@dataclass(frozen=True, slots=True)
class CheckedTable:
    """A table without fault.

    Attributes:
        table: The file.
        model: The `.param` it was held against.
        rows: How many rows it has.
        integer: Layers that ncnn2int8 quantizes with it.
        float_: Layers that it could quantize, and that have no rows.
    """

    table: str
    model: str
    rows: int
    integer: tuple[str, ...]
    float_: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The keys of `verify --table --json`."""
        return {
            "table": self.table,
            "model": self.model,
            "rows": self.rows,
            "quantized": list(self.integer),
            "float": list(self.float_),
            "findings": [],
        }


def check_table(files: Sequence[Path], table: Path) -> CheckedTable:
    """Look for everything in `table` that ncnn2int8 would silently take otherwise.

    Args:
        files: A bundle, or an ncnn model: `x.param`, with or without its `x.bin`.
        table: The table.

    Raises:
        UsageError: If the files are not one of these.
        ModelFormatError: If the model or the table cannot be read.
        VerificationError: With every finding.
    """
    param = _float_param(files)
    network = ncnn_param.parse(read_text(param, "the .param"), origin=str(param))
    _must_be_float(network, param)
    text = read_text(table, "the table")
    findings = lint(text, network)
    if findings:
        raise VerificationError(
            f"the table has {len(findings)} fault{'s' * (len(findings) > 1)}",
            at=f"{table}, for {param}",
            why="\n       ".join(map(str, findings)),
            fix="correct the lines named, or write a new table: qconvert convert --to ncnn",
            details={
                "table": str(table),
                "model": str(param),
                "findings": [asdict(finding) for finding in findings],
            },
        )
    rows = ncnn_table.parse(text, origin=str(table)).rows
    able = [layer for layer in network.layers if ncnn_table.expected_counts(layer)]
    integer = [layer.name for layer in able if _is_integer(layer, rows)]
    return CheckedTable(
        str(table),
        str(param),
        len(rows),
        tuple(integer),
        tuple(layer.name for layer in able if layer.name not in integer),
    )


def _is_integer(layer: Layer, rows: Sequence[Row]) -> bool:
    """Whether ncnn2int8 quantizes a layer: its input row decides, or its weights' where alone."""
    keys = {row.key for row in rows if row.layer == layer.name}
    static = layer.kind not in ncnn_table.DYNAMIC
    return layer.name in keys if static else bool(keys)


def _float_param(files: Sequence[Path]) -> Path:
    """The `.param` that a table for these files is about."""
    params = [path for path in files if path.suffix == ".param"]
    others = [path for path in files if path.suffix not in {".param", ".bin"}]
    if len(params) == 1 and not others:
        return params[0]
    if len(files) != 1 or params or files[0].suffix == ".bin":
        raise UsageError(
            f"'{' '.join(map(str, files))}' is not what a table is for",
            why="a table belongs to one .param",
            fix="qconvert verify DIR --table FILE, or qconvert verify x.param --table FILE",
        )
    manifest = Manifest.read(files[0])
    if manifest.target != "ncnn":
        raise UsageError(
            f"'{files[0]}' is a bundle for {manifest.target}", why="a table is for ncnn"
        )
    return files[0] / ("float.param" if manifest.quantized else "model.param")


def _must_be_float(network: Network, param: Path) -> None:
    """Refuse a model that ncnn2int8 has been at already."""
    for layer in network.layers:
        if ncnn_table.expected_counts(layer) and (layer.int(8, 0) or layer.int(18, 0)):
            raise UsageError(
                f"'{param.name}' holds integers already",
                at=f"layer '{layer.name}' in {param}",
                why="a table is for the float model that ncnn2int8 reads",
                fix="give the float model's .param",
            )

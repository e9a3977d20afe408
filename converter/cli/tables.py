"""Results as a person reads them, on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.table import Table

from qconvert.bundle import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qconvert.cli.screen import Screen
    from qconvert.pipeline.calibrate import Scales
    from qconvert.pipeline.convert import Conversion
    from qconvert.pipeline.inspect import Inspection
    from qconvert.pipeline.table import CheckedTable
    from qconvert.verification.evaluate import Evaluation

__all__ = [
    "calibration",
    "checked_table",
    "conversion",
    "evaluation",
    "formats",
    "inspection",
    "verification",
]


_LISTED: Final = 16
"""Files of a bundle up to which they are named."""


def _table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table; columns in `numbers` are right-aligned."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left")
    return table


def _figure(value: float | None, layout: str, unit: str = "") -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:{layout}}{unit}"


def _percent(rate: float | None) -> str:
    """A rate 0..1 as a percentage."""
    return _figure(None if rate is None else 100 * rate, ".1f", " %")


def _shape(shape: Sequence[int]) -> str:
    """A shape, with `?` where it depends on the data."""
    return "x".join("?" if size < 0 else str(size) for size in shape)


def conversion(screen: Screen, result: Conversion) -> None:
    """The end of `convert`."""
    integer = [row for row in result.layers if row["bits"] < 32]
    if integer:
        widths = sorted({row["bits"] for row in integer})
        screen.say(
            f"{len(integer)} of {len(result.layers)} layers run on integers "
            f"({', '.join(f'{bits} bits' for bits in widths)})"
        )
    if "report" in result.manifest.extra:
        _hardware(screen, result)
    if result.manifest.verification is not None:
        verification(screen, result.manifest.verification)
    oldest = result.manifest.extra.get("oldest_ncnn")
    if oldest is not None:
        uses = "; ".join(f"{what} ('{layer}')" for what, layer in oldest["because"].items())
        screen.say(f"needs ncnn {oldest['release']} or newer" + (f": {uses}" if uses else ""))
    for line in result.manifest.extra.get("commands", ()):
        screen.say(f"to build it: {line}")
    names = [*(entry.path for entry in result.manifest.files), MANIFEST]
    listed = ", ".join(names) if len(names) <= _LISTED else f"{len(names)} files"
    screen.say(f"wrote {result.bundle}: {listed}")


def _hardware(screen: Screen, result: Conversion) -> None:
    """What every layer of an integer program costs."""
    columns = ("layer", "op", "MACs", "parameters", "buffers", "sum bits", "SNR")
    table = _table(*columns, numbers=columns[2:])
    for row in result.manifest.layers:
        table.add_row(
            row.name,
            row.type,
            _figure(row.extra["macs"] or None, ",d"),
            _figure(row.details["parameter_bytes"] / 1024, ",.1f", " KiB"),
            _figure(row.details["buffer_bytes"] / 1024, ",.1f", " KiB"),
            _figure(row.extra["accumulator_bits_needed"] or None, "d"),
            _figure(row.details["snr_db"], ".1f", " dB"),
        )
    screen.say(table)


def verification(screen: Screen, figures: Mapping[str, Any]) -> None:
    """What was measured, against the float model and against the simulation."""
    columns = ("output", "cosine", "SNR", "max abs error")
    table = _table(*columns, numbers=columns[1:])
    for row in figures["outputs"]:
        table.add_row(
            row["name"],
            _figure(row["cosine"], ".6f"),
            _figure(row["snr_db"], ".1f", " dB"),
            _figure(row["max_abs_error"], ".3g"),
        )
    screen.say(table)
    line = f"measured on {figures['runtime']} over {figures['samples']} inputs"
    if figures.get("top1_agreement") is not None:
        line += f": {_percent(figures['top1_agreement'])} same top-1 as the float model"
    screen.say(line)
    simulation = figures.get("simulation")
    if simulation is not None:
        known = [row["cosine"] for row in simulation["outputs"] if row["cosine"] is not None]
        worst = min(known, default=None)
        screen.say(f"the runtime follows the quantized simulation: cosine {_figure(worst, '.6f')}")


def checked_table(screen: Screen, result: CheckedTable) -> None:
    """The end of `verify --table`."""
    screen.say(
        f"{result.table}: {result.rows} rows without fault; ncnn2int8 quantizes "
        f"{len(result.integer)} layers with it"
    )
    if result.float_:
        screen.say(f"these stay float: {', '.join(result.float_)}")


def evaluation(screen: Screen, result: Evaluation) -> None:
    """Rates of `evaluate`."""
    columns = ("images", "top-1", "top-5", "same as float")
    table = _table(*columns, numbers=columns)
    table.add_row(
        str(result.images),
        _percent(result.top1),
        _percent(result.top5),
        _percent(result.agreement),
    )
    screen.say(table)


def calibration(screen: Screen, output: Path, result: Scales) -> None:
    """The end of `calibrate`."""
    found = result.found.encodings
    screen.say(
        f"{len(found.activations)} activations and {len(found.weights)} weights "
        f"from {result.images} samples"
    )
    screen.say(f"wrote {output}")


def inspection(screen: Screen, result: Inspection) -> None:
    """The layer list of `inspect`."""
    numbers = ("shape", "MMACs")
    columns = ["layer", "type", *numbers]
    if result.integers:
        columns.append("runs as")
    table = _table(*columns, numbers=numbers)
    for row in result.layers:
        cells = [row["name"], row["type"], _shape(row["shape"]), f"{row['macs'] / 1e6:.2f}"]
        if result.integers:
            cells.append(result.integers.get(row["name"], "float"))
        table.add_row(*cells)
    screen.say(table)
    for title, ends in (("input", result.inputs), ("output", result.outputs)):
        for end in ends:
            screen.say(f"{title} {end['name']}: {_shape(end['shape'])}")
    screen.say(f"{result.macs / 1e6:.1f} MMACs, {result.parameters / 1e6:.3f} M parameters")
    for target, problems in result.unsupported.items():
        screen.say(
            f"{target}: " + ("; ".join(problems) if problems else "every layer is supported")
        )


def formats(screen: Screen, listing: Mapping[str, Any]) -> None:
    """What is read and written."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for name, row in listing["reads"].items():
        grid.add_row(f"reads {name}", f"({', '.join(row['files'])}) {', '.join(row['operators'])}")
    for name, row in listing["writes"].items():
        grid.add_row(f"writes {name}", ", ".join(row["operators"]))
        grid.add_row("  as integers", ", ".join(row["quantizes"]))
    screen.say(grid)

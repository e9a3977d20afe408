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
    _accumulators(screen, result.layers)
    if "report" in result.manifest.extra:
        _hardware(screen, result)
    if result.manifest.verification is not None:
        verification(screen, result.manifest.verification)
    _numbers(screen, result.numbers)
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
    if "golden_vectors" in figures:
        screen.say(f"{figures['golden_vectors']} golden vectors agree to the bit")
    for finding in figures.get("lint", ()):
        screen.say(f"lint: {finding}")
    simulation = figures.get("simulation")
    if simulation is not None:
        known = [row["cosine"] for row in simulation["outputs"] if row["cosine"] is not None]
        worst = min(known, default=None)
        screen.say(f"the runtime follows the quantized simulation: cosine {_figure(worst, '.6f')}")
    if "as_deployed" in figures:
        _deployed(screen, figures["as_deployed"])


def _accumulators(screen: Screen, layers: Sequence[Mapping[str, Any]]) -> None:
    """What the widest sums of the integer layers need; each layer's own are in the manifest."""
    known = [row for row in layers if "largest_accumulator" in row]
    if not known:
        return
    largest = max(known, key=lambda row: int(row["largest_accumulator"]))
    fewest = min(known, key=lambda row: int(row.get("products_in_int16", 1 << 30)))
    bits = int(largest["largest_accumulator"]).bit_length() + 1
    line = (
        f"largest possible sum {largest['largest_accumulator']} ('{largest['name']}'): {bits} bits"
    )
    if "products_in_int16" in fewest:
        count = fewest["products_in_int16"]
        line += f"; 16 bits hold {count} products at least ('{fewest['name']}')"
    screen.say(line)
    slow = [row["name"] for row in known if row.get("winograd") is False]
    if slow:
        screen.say(f"Winograd is off, because its sums could overflow, in: {', '.join(slow)}")


def _numbers(screen: Screen, numbers: Mapping[str, Any]) -> None:
    """Size, work and time of the artifact, beside those of its float model."""
    sizes, cost, latency = numbers["bytes"], numbers["cost"], numbers["latency_ms"]
    words = []
    if sizes["model"] is not None:
        words.append(_beside(sizes["model"], sizes["float"], 1e6, "MB"))
    if cost is not None:
        model, base = cost["model"], cost["float"] or {}
        words.append(f"{model['macs'] / 1e6:.1f} MMACs")
        if model["integer_macs"]:
            words[-1] += f" ({_percent(model['integer_macs'] / model['macs'])} on integers)"
        words.append("blobs " + _beside(model["blob_bytes"], base.get("blob_bytes"), 1e6, "MB"))
    if latency is not None:
        time = _beside(latency["model"], latency["float"], 1.0, "ms")
        words.append(f"{time} here, on one thread (median of {latency['rounds']})")
    if words:
        screen.say("; ".join(words))


def _beside(value: float, base: float | None, unit: float, word: str) -> str:
    """A figure, and the float model's in brackets."""
    text = f"{value / unit:.3g} {word}"
    return text if base is None else f"{text} (float {base / unit:.3g})"


def _deployed(screen: Screen, figures: Mapping[str, Any]) -> None:
    """The second figure: with the options that the runtime has by default."""
    if "trouble" in figures:
        screen.say(f"as deployed: {figures['trouble']}")
    elif not figures["differs"]:
        screen.say("as deployed: fp16 changes nothing on this processor with this build of ncnn")
    else:
        worst = min((row["cosine"] or -2.0 for row in figures["outputs"]), default=-2.0)
        measured = "not finite" if worst < -1 else f"{worst:.6f}"
        screen.say(f"as deployed, {figures['runtime']}: cosine {measured}")


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
            # Why, stands below the table: many operators have one reason.
            cells.append(result.integers.get(row["name"], "float").partition(":")[0])
        table.add_row(*cells)
    screen.say(table)
    for title, ends in (("input", result.inputs), ("output", result.outputs)):
        for end in ends:
            screen.say(f"{title} {end['name']}: {_shape(end['shape'])}")
    screen.say(f"{result.macs / 1e6:.1f} MMACs, {result.parameters / 1e6:.3f} M parameters")
    for finding in result.lint:
        screen.say(f"lint: {finding}")
    if result.check is not None:
        _check(screen, result, result.check)
    for target, problems in result.unsupported.items():
        screen.say(
            f"{target}: " + ("; ".join(problems) if problems else "every layer is supported")
        )


def _check(screen: Screen, result: Inspection, found: Mapping[str, Any]) -> None:
    """What else a target will make of a model."""
    _floats(screen, result)
    for note in result.notes:
        if " stays: " in note:
            screen.say(f"not folded: {note}")
    for each in found["fusions"]:
        if each["why_not"] is not None:
            screen.say(f"not fused: {each['pattern']} at '{each['nodes'][-1]}': {each['why_not']}")
    for each in found["shared_weights"]:
        screen.say(f"shared: '{each['weight']}' by {', '.join(each['layers'])}")
    for group in found["shared_scales"]:
        screen.say(f"one scale: {', '.join(group)}")
    if found["too_wide"] is not None:
        _too_wide(screen, found["too_wide"])


def _floats(screen: Screen, result: Inspection) -> None:
    """What stays float, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, how in result.integers.items():
        if how.startswith("float: "):
            reasons.setdefault(how.removeprefix("float: "), []).append(name)
    for why, names in reasons.items():
        screen.say(f"float, because {why}: {', '.join(names)}")


def _too_wide(screen: Screen, rows: Sequence[Mapping[str, Any]]) -> None:
    """Tensors whose values are too far apart for their codes."""
    if not rows:
        screen.say("every distribution fits its codes")
        return
    columns = ("too wide", "bits", "SNR", "lost to 0", "max / 99.9 %", "try")
    table = _table(*columns, numbers=columns[1:5])
    for row in rows:
        table.add_row(
            row["tensor"],
            str(row["bits"]),
            _figure(row["snr_db"], ".1f", " dB"),
            _percent(row["lost"]),
            _figure(row["outliers"], ".1f"),
            row["fix"],
        )
    screen.say(table)


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
        grid.add_row("  as one operator", "; ".join(row["fused"]))
    screen.say(grid)

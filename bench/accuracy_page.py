"""The page docs/accuracy.md, from the cells that bench/accuracy.py has finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from accuracy_cases import Method, Model

BITS: Final = (8, 7, 6, 5, 4)
CLOSE: Final = 1e-3  # a lower cosine than that of kl by more than this is worth a line
COMMAND: Final = "python bench/accuracy.py"

_HEAD: Final = f"""\
# Accuracy

Weights (per output channel) and inputs of all linear layers have the width named. 50 samples are
for calibration; all figures are on samples not used for it, against the float network, ± standard
error, but *seen*: the mean cosine on the calibration samples. The photo sets are small and perhaps
seen in training: compare rows with each other, not with published accuracy. CPU is time, a multiple
of the first row's; memory is what calibration took on top of the loaded model, the samples that the
search keeps included.

`easyquant` is what `convert --method easyquant` does by default: channel ranges are evened out
first, and weights are fitted again to their rounded input and rounded by output error. Rows with
options leave one of these out, or add to them. What the search finds depends on the seed, which is
0: rows with other seeds, where there are some, say how much.

`make accuracy` (`{COMMAND}`) computes the cells that are missing and writes this page;
it can be interrupted and run again. `--model`, `--bits` and `--method` choose some of them, and
`--all` adds seeds and efforts, and the search without fitting, without rounding, with bias
correction. A row that is missing was not run.
"""


def page(
    cells: Mapping[str, dict[str, Any]], models: Sequence[Model], methods: Sequence[Method]
) -> str:
    """The page; cells by `model/bits/method`."""
    lines = [_HEAD, *_coverage(cells, models, methods), ""]
    worse = list(_worse(cells, models))
    lines += ["## Where the search is behind", ""]
    lines += worse or [f"Nowhere by more than {CLOSE:g} of mean cosine, at 8 and 7 bits."]
    lines.append("")
    for model in models:
        tables = [line for bits in BITS for line in _table(model, bits, cells, methods)]
        if not tables:
            continue
        known = [cell for key, cell in cells.items() if key.startswith(f"{model.name}/")]
        top1 = known[0]["float_top1"]
        note = "" if top1 is None else f", float top-1 {100 * top1:.1f} %"
        lines += [f"## {model.name}", "", f"{known[0]['tests']} samples{note}.", "", *tables]
    return "\n".join(lines).rstrip() + "\n"


def _coverage(
    cells: Mapping[str, dict[str, Any]], models: Sequence[Model], methods: Sequence[Method]
) -> list[str]:
    """Which cells there are, and the command for the rest of each model."""
    usual = [method.name for method in methods if not method.extra]
    lines = [
        "## Which cells were run",
        "",
        "| model | " + " | ".join(f"{bits} bits" for bits in BITS) + " | the rest |",
        "|---" * (len(BITS) + 2) + "|",
    ]
    for model in models:
        done = [sum(f"{model.name}/{bits}/{name}" in cells for name in usual) for bits in BITS]
        counts = [f"{count} of {len(usual)}" for count in done]
        left = sum(done) < len(usual) * len(BITS)
        command = f"`{COMMAND} --model {model.name}`" if left else "–"
        lines.append("| " + " | ".join([model.name, *counts, command]) + " |")
    return lines


def _worse(cells: Mapping[str, dict[str, Any]], models: Sequence[Model]) -> Iterator[str]:
    """Outputs on which easyquant falls behind kl at 8 and 7 bits, on unseen samples."""
    for model in models:
        for bits in (8, 7):
            pair = [cells.get(f"{model.name}/{bits}/{name}") for name in ("easyquant", "kl")]
            if pair[0] is None or pair[1] is None:
                continue
            for output, found in pair[0]["cosines"].items():
                other = pair[1]["cosines"][output]
                if found < other - CLOSE:
                    yield f"- {model.name}, {bits} bits, `{output}`: {found:.4f}, kl {other:.4f}"


def _percent(rate: float | None, count: int) -> str:
    if rate is None:
        return "–"
    return f"{100 * rate:.1f} ± {100 * (rate * (1 - rate) / count) ** 0.5:.1f}"


def _row(method: Method, cell: dict[str, Any], base: float) -> str:
    cosines = [
        f"{value:.4f} ± {cell['cosine_errors'][key]:.4f}" for key, value in cell["cosines"].items()
    ]
    columns = [
        method.name,
        "–" if cell["top1"] is None else f"{100 * cell['top1']:.1f}",
        _percent(cell["agreement"], cell["tests"]),
        " / ".join(cosines),
        "–" if cell.get("seen") is None else f"{cell['seen']:.4f}",
        " / ".join(f"{value:.3g}" for value in cell["rmse"].values()),
        f"{cell['snr_db']:.1f}",
        f"{cell['seconds'] / base:.1f}",
        f"{cell['peak_mb']:.0f}",
    ]
    return "| " + " | ".join(columns) + " |"


def _table(
    model: Model, bits: int, cells: Mapping[str, dict[str, Any]], methods: Sequence[Method]
) -> list[str]:
    """One table: the methods at one width."""
    keys = [(method, f"{model.name}/{bits}/{method.name}") for method in methods]
    rows = [(method, cells[key]) for method, key in keys if key in cells]
    if not rows:
        return []
    names = list(rows[0][1]["cosines"])
    base = rows[0][1]["seconds"]
    title = "cosine" if len(names) == 1 else "cosine of " + " / ".join(f"`{n}`" for n in names)
    return [
        f"### {bits} bits",
        "",
        f"| method | top-1 % | agreement % | {title} | seen | RMSE | SNR dB | CPU | memory MB |",
        "|---" * 9 + "|",
        *(_row(method, cell, base) for method, cell in rows),
        "",
    ]

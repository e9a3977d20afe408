"""Accuracy of every calibration method on real models, as a table in docs/accuracy.md.

    python bench/accuracy.py [--model NAME] [--bits N] [--method NAME] [--all] [--print]

Each cell is one child process: it calibrates on 50 samples, simulates the quantized network in
onnxruntime on samples it has not seen, and compares with the float network. Finished cells are
kept in .bench/accuracy.json; run again to continue, delete the file to start over. The corpus is
found as in the tests (QCONVERT_CORPUS).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from accuracy_cases import CALIBRATION, LINEAR, METHODS, MODELS, Method, Model
from accuracy_measure import Cell, Unseen, measure, seen
from accuracy_page import BITS, page

from qconvert.calibration.refine.ranges import channel_ranges
from qconvert.calibration.run import calibrate
from qconvert.calibration.settings import Settings
from qconvert.dataset.preprocessing import read_keys
from qconvert.passes.equalize import Equalize, watched
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.order import optimize
from qconvert.passes.planning import plan
from qconvert.pipeline.data import dataset_for
from qconvert.pipeline.load import load
from qconvert.plan import Scheme
from qconvert.progress import Quiet
from qconvert.recipe import Recipe
from qconvert.report import Report

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.dataset.reader import Dataset

ROOT: Final = Path(__file__).resolve().parents[1]
CORPUS: Final = Path(os.environ.get("QCONVERT_CORPUS", ROOT.parent / "shared" / "corpus"))
CELLS: Final = ROOT / ".bench" / "accuracy.json"
PAGE: Final = ROOT / "docs" / "accuracy.md"
# One thread: threads that wait for work spin, and their time would count.
_ENVIRONMENT: Final = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _read(model: Model) -> ir.Model:
    folder = CORPUS / "models" / model.name
    graph = load([folder / file for file in model.files], Recipe().reading, Report()).model
    optimize(graph, Report())
    return graph


def _data(model: Model, graph: ir.Model) -> tuple[Dataset, list[Dataset]]:
    """Calibration samples, spread over the first part of the data, and all the others."""
    keys = read_keys(CORPUS / "models" / model.name / "preprocessing.json")
    parts = []
    for name in model.data:
        path = CORPUS / "images" / name
        labels = path / "labels.txt" if model.labelled and path.is_dir() else None
        parts.append(dataset_for(graph, path, keys, labels=labels))
    count = len(parts[0])
    chosen = [index * count // CALIBRATION for index in range(CALIBRATION)]
    others = [index for index in range(count) if index not in set(chosen)]
    return parts[0].subset(chosen), [parts[0].subset(others), *parts[1:]]


def _one(model: Model, method: Method, bits: int) -> Cell:
    """Compute one cell, in this process."""
    graph = _read(model)
    samples, tests = _data(model, graph)
    report, float_graph = Report(), graph.clone()
    before, begin = _peak_mb(), time.process_time()
    if method.evened:
        Equalize(report, channel_ranges(graph, watched(graph), samples))(graph)
    layout = plan(graph, LINEAR, Scheme(weight_bits=bits, activation_bits=bits), report)
    found = calibrate(
        graph, layout, samples, Settings(threads=1, **method.settings), report, Quiet()
    )
    spent, peak = time.process_time() - begin, _peak_mb() - before
    quantized = insert_qdq(graph, layout, found.encodings)
    unseen = Unseen.of(CELLS.parent / model.name, float_graph, tests, model.tests)
    cell = measure(model, unseen, quantized)
    cell.seen = seen(float_graph, quantized, samples)
    cell.seconds, cell.peak_mb, cell.warnings = spent, peak, report.warnings
    return cell


def _cells() -> dict[str, dict[str, Any]]:
    return json.loads(CELLS.read_text()) if CELLS.exists() else {}


def _fill(models: list[Model], methods: list[Method], widths: list[int]) -> None:
    """Compute what is missing, one child process each."""
    CELLS.parent.mkdir(exist_ok=True)
    for model in models:
        for bits in widths:
            for method in methods:
                key = f"{model.name}/{bits}/{method.name}"
                if key in _cells():
                    continue
                print(key, file=sys.stderr, flush=True)
                command = [sys.executable, __file__, "--one", key]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=_ENVIRONMENT)
                cells = {**_cells(), key: json.loads(done.stdout)}
                CELLS.write_text(json.dumps(cells, indent=1) + "\n")
                PAGE.write_text(page(cells, MODELS, METHODS))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fill the table of docs/accuracy.md.")
    parser.add_argument("--model", action="append", choices=[m.name for m in MODELS])
    parser.add_argument("--method", action="append", choices=[m.name for m in METHODS])
    parser.add_argument("--bits", action="append", type=int, choices=BITS)
    parser.add_argument("--all", action="store_true", help="also the rows that are left out")
    parser.add_argument("--print", action="store_true", help="write the page from finished cells")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Compute missing cells and write the page."""
    arguments = _arguments()
    if arguments.one is not None:
        name, bits, method = arguments.one.split("/")
        models = {model.name: model for model in MODELS}
        methods = {row.name: row for row in METHODS}
        print(json.dumps(asdict(_one(models[name], methods[method], int(bits)))))
        return
    if not CORPUS.is_dir():
        print(f"no corpus at {CORPUS}; set QCONVERT_CORPUS", file=sys.stderr)
        return
    if not arguments.print:
        _fill(
            [m for m in MODELS if not arguments.model or m.name in arguments.model],
            [
                method
                for method in METHODS
                if method.name in (arguments.method or ())
                or (not arguments.method and (arguments.all or not method.extra))
            ],
            [b for b in BITS if not arguments.bits or b in arguments.bits],
        )
    PAGE.write_text(page(_cells(), MODELS, METHODS))


if __name__ == "__main__":
    main()

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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
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
from qconvert.plan import OpRule, Policy, Scheme
from qconvert.progress import Quiet
from qconvert.recipe import Recipe
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from qconvert.dataset.reader import Dataset
    from qconvert.quant import F32

ROOT: Final = Path(__file__).resolve().parents[1]
CORPUS: Final = Path(os.environ.get("QCONVERT_CORPUS", ROOT.parent / "shared" / "corpus"))
CELLS: Final = ROOT / ".bench" / "accuracy.json"
PAGE: Final = ROOT / "docs" / "accuracy.md"
# One thread: threads that wait for work spin, and their time would count.
_ENVIRONMENT: Final = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
CALIBRATION: Final = 50

LINEAR: Final = Policy(
    "inputs and weights of linear layers",
    {
        kind: OpRule(kind, "compute", weights="channel")
        for kind in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    },
    weight_bits=frozenset(range(2, 17)),
    activation_bits=frozenset(range(2, 17)),
)


@dataclass(frozen=True)
class Model:
    """One row group of the table.

    Attributes:
        name: Folder in the corpus.
        files: Model files in it.
        data: Image folders or one npz in the corpus; calibration samples are from the first.
        tests: Samples it is measured on, at most.
        labelled: Whether its data carry its classes.
        classes: Whether its first output is a vector of class scores.
    """

    name: str
    files: tuple[str, ...]
    data: tuple[str, ...]
    tests: int
    labelled: bool = False
    classes: bool = False


PHOTOS: Final = ("imagenet200", "nips17_300")
MODELS: Final = (
    Model(
        "caffe_squeezenet_v1.1",
        ("deploy.prototxt", "squeezenet_v1.1.caffemodel"),
        PHOTOS,
        450,
        labelled=True,
        classes=True,
    ),
    Model(
        "onnx_mobilenet_v1_025",
        ("mobilenet_v1_0.25_224.onnx",),
        PHOTOS,
        450,
        labelled=True,
        classes=True,
    ),
    Model(
        "onnx_resnet20_cifar10_fp32",
        ("resnet20_cifar10.onnx",),
        ("cifar10_test_1000.npz",),
        950,
        labelled=True,
        classes=True,
    ),
    Model("caffe_mtcnn_onet", ("det3.prototxt", "det3.caffemodel"), PHOTOS, 450),
    Model(
        "darknet_yolo_fastest_1.1",
        ("yolo-fastest-1.1.cfg", "yolo-fastest-1.1.weights"),
        PHOTOS,
        150,
    ),
)


@dataclass(frozen=True)
class Method:
    """One column group.

    Attributes:
        name: As printed: the method, and the options that are not a conversion's defaults.
        settings: Of the calibration.
        evened: Whether channel ranges are evened out first, as conversions do for easyquant.
        extra: Whether it is left out unless asked for (`--all`).
    """

    name: str
    settings: dict[str, Any]
    evened: bool = False
    extra: bool = False


METHODS: Final = (
    Method("minmax", {"method": "minmax"}),
    Method("percentile", {"method": "percentile"}),
    Method("kl", {"method": "kl"}),
    Method("mse", {"method": "mse"}),
    Method("aciq", {"method": "aciq"}),
    Method("admm", {"method": "admm"}),
    Method("easyquant", {"method": "easyquant"}, evened=True),
    Method("easyquant, --no-equalize", {"method": "easyquant"}),
    Method("kl, --equalize", {"method": "kl"}, evened=True, extra=True),
    Method(
        "easyquant, --effort fast",
        {"method": "easyquant", "effort": "fast"},
        evened=True,
        extra=True,
    ),
    Method(
        "easyquant, --effort best",
        {"method": "easyquant", "effort": "best"},
        evened=True,
        extra=True,
    ),
    Method(
        "easyquant, --rounding optimal",
        {"method": "easyquant", "rounding": "optimal"},
        evened=True,
        extra=True,
    ),
    Method(
        "easyquant, --bias-correction",
        {"method": "easyquant", "bias_correction": True},
        evened=True,
        extra=True,
    ),
)


@dataclass
class Cell:
    """What one method does to one model at one width.

    Attributes:
        agreement: Share of samples with the float network's first class; None without classes.
        top1: Share of samples with the right class; None without labels.
        float_top1: The same of the float network.
        cosines: Mean cosine with float per output.
        cosine_errors: Their standard errors.
        seen: Mean cosine over outputs and samples on the samples of the calibration.
        snr_db: Signal to noise over all outputs together.
        rmse: Root mean square error per output.
        tests: Samples measured on.
        seconds: CPU time of calibration.
        peak_mb: Peak memory of calibration over that of the loaded model.
        warnings: What calibration had to say.
    """

    agreement: float | None = None
    top1: float | None = None
    float_top1: float | None = None
    cosines: dict[str, float] = field(default_factory=dict)
    cosine_errors: dict[str, float] = field(default_factory=dict)
    seen: float | None = None
    snr_db: float = 0.0
    rmse: dict[str, float] = field(default_factory=dict)
    tests: int = 0
    seconds: float = 0.0
    peak_mb: float = 0.0
    warnings: list[str] = field(default_factory=list)


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


def _outputs(
    graph: ir.Model, tests: list[Dataset], most: int
) -> Iterator[tuple[int | None, dict[str, F32]]]:
    """(label, outputs) of the test samples."""
    with OnnxRuntime(graph, threads=1) as runtime:
        total = sum(len(part) for part in tests)
        for part in tests:
            share = min(len(part), most * len(part) // total + 1)
            indices = [index * len(part) // share for index in range(share)]
            for sample in part.subset(indices):
                yield sample.label, runtime.run(sample.inputs)


def _exact(
    model: Model, graph: ir.Model, tests: list[Dataset]
) -> Iterator[tuple[int | None, dict[str, F32]]]:
    """(label, outputs) of the float network, computed once and kept."""
    path = CELLS.parent / f"{model.name}.npz"
    if not path.exists():
        rows = list(_outputs(graph, tests, model.tests))
        labels = np.array([-1 if label is None else label for label, _ in rows])
        stacked = {f"out::{name}": np.stack([row[name] for _, row in rows]) for name in rows[0][1]}
        np.savez(path, labels=labels, **stacked)
    with np.load(path) as kept:
        outputs = {key[5:]: kept[key] for key in kept.files if key.startswith("out::")}
        for index, label in enumerate(kept["labels"].tolist()):
            yield label, {name: rows[index] for name, rows in outputs.items()}


def _cosine(exact: F32, found: F32) -> float:
    a, b = (side.astype(np.float64).ravel() for side in (exact, found))
    return float(a @ b) / max(float(np.sqrt((a @ a) * (b @ b))), 1e-30)


def _seen(graph: ir.Model, quantized: ir.Model, samples: Dataset) -> float:
    """Mean cosine over outputs and samples, on the samples of the calibration."""
    rows = zip(
        _outputs(graph, [samples], len(samples)),
        _outputs(quantized, [samples], len(samples)),
        strict=True,
    )
    found = [
        _cosine(value, other[name])
        for (_, exact), (_, other) in rows
        for name, value in exact.items()
    ]
    return float(np.mean(found))


def _measure(model: Model, graph: ir.Model, quantized: ir.Model, tests: list[Dataset]) -> Cell:
    """Compare the simulation with float on unseen samples."""
    cell = Cell()
    agree, right, float_right = [], [], []
    cosines: dict[str, list[float]] = {}
    noise: dict[str, list[float]] = {}
    signal = 0.0
    pairs = zip(_exact(model, graph, tests), _outputs(quantized, tests, model.tests), strict=True)
    for (label, exact), (_, found) in pairs:
        for name, goal in exact.items():
            a, b = (side.astype(np.float64).ravel() for side in (goal, found[name]))
            cosines.setdefault(name, []).append(_cosine(goal, found[name]))
            noise.setdefault(name, []).append(float(np.square(a - b).mean()))
            signal += float(np.square(a).mean())
        if model.classes:
            name = next(iter(exact))
            agree.append(bool(exact[name].argmax() == found[name].argmax()))
            right.append(found[name].argmax() == label)
            float_right.append(exact[name].argmax() == label)
    cell.tests = len(next(iter(cosines.values())))
    cell.cosines = {name: float(np.mean(row)) for name, row in cosines.items()}
    cell.cosine_errors = {
        name: float(np.std(row) / np.sqrt(len(row))) for name, row in cosines.items()
    }
    cell.rmse = {name: float(np.sqrt(np.mean(row))) for name, row in noise.items()}
    total = sum(sum(row) for row in noise.values())
    cell.snr_db = float(10 * np.log10(signal / max(total, 1e-30)))
    if model.classes:
        cell.agreement = float(np.mean(agree))
        if model.labelled:
            cell.top1, cell.float_top1 = float(np.mean(right)), float(np.mean(float_right))
    return cell


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
    cell = _measure(model, float_graph, quantized, tests)
    cell.seen = _seen(float_graph, quantized, samples)
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

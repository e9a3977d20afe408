"""How far a quantized network is from the float one, on samples that calibration has not seen.

Inputs and float outputs of those samples are made once per model and kept in a folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir
    from accuracy_cases import Model

    from qconvert.dataset.reader import Dataset
    from qconvert.quant import F32


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


@dataclass(frozen=True)
class Unseen:
    """Test samples of one model, and what the float network makes of them.

    Attributes:
        labels: Classes, -1 where there is none.
        inputs: Network input → [samples, ...], memory-mapped.
        outputs: Float network output → [samples, ...].
    """

    labels: list[int]
    inputs: dict[str, F32]
    outputs: dict[str, F32]

    @classmethod
    def of(cls, folder: Path, graph: ir.Model, tests: list[Dataset], most: int) -> Unseen:
        """Read from `folder`, or make and keep: up to about `most` samples, spread over `tests`."""
        if not (folder / "labels.npy").exists():
            folder.mkdir(parents=True, exist_ok=True)
            _make(folder, graph, tests, most)
        values: dict[str, dict[str, F32]] = {"in": {}, "out": {}}
        for path in folder.glob("*.npy"):
            if path.stem != "labels":
                kind, name = path.stem.split("@", 1)
                values[kind][name.replace("%", "/")] = np.load(path, mmap_mode="r")
        names = [str(value.name) for value in graph.graph.outputs]
        outputs = {name: values["out"][name] for name in names}
        return cls(np.load(folder / "labels.npy").tolist(), values["in"], outputs)


def _make(folder: Path, graph: ir.Model, tests: list[Dataset], most: int) -> None:
    """Write test inputs and float outputs, one array a file; the labels last."""
    total = sum(len(part) for part in tests)
    labels: list[int] = []
    rows: dict[str, list[F32]] = {}
    with OnnxRuntime(graph, threads=1) as runtime:
        for part in tests:
            share = min(len(part), most * len(part) // total + 1)
            for sample in part.subset([index * len(part) // share for index in range(share)]):
                labels.append(-1 if sample.label is None else sample.label)
                values = {f"in@{name}": value for name, value in sample.inputs.items()}
                for name, value in runtime.run(sample.inputs).items():
                    values[f"out@{name}"] = value
                for name, value in values.items():
                    rows.setdefault(name.replace("/", "%"), []).append(value)
    for name, found in rows.items():
        np.save(folder / f"{name}.npy", np.stack(found))
    np.save(folder / "labels.npy", np.array(labels))


def _cosine(exact: F32, found: F32) -> float:
    a, b = (side.astype(np.float64).ravel() for side in (exact, found))
    return float(a @ b) / max(float(np.sqrt((a @ a) * (b @ b))), 1e-30)


def seen(graph: ir.Model, quantized: ir.Model, samples: Dataset) -> float:
    """Mean cosine over outputs and samples, on the samples of the calibration."""
    found = []
    with OnnxRuntime(graph, threads=1) as exact, OnnxRuntime(quantized, threads=1) as runtime:
        for sample in samples:
            other = runtime.run(sample.inputs)
            goals = exact.run(sample.inputs)
            found += [_cosine(goal, other[name]) for name, goal in goals.items()]
    return float(np.mean(found))


def measure(model: Model, unseen: Unseen, quantized: ir.Model) -> Cell:
    """Compare the simulation with float on unseen samples."""
    cell = Cell(tests=len(unseen.labels))
    first = next(iter(unseen.outputs))
    agree, right, float_right = [], [], []
    cosines: dict[str, list[float]] = {name: [] for name in unseen.outputs}
    noise: dict[str, list[float]] = {name: [] for name in unseen.outputs}
    signal = 0.0
    with OnnxRuntime(quantized, threads=1) as runtime:
        for index, label in enumerate(unseen.labels):
            found = runtime.run({name: rows[index] for name, rows in unseen.inputs.items()})
            for name, rows in unseen.outputs.items():
                goal = rows[index]
                cosines[name].append(_cosine(goal, found[name]))
                noise[name].append(float(np.square(found[name] - goal, dtype=np.float64).mean()))
                signal += float(np.square(goal, dtype=np.float64).mean())
            winners = unseen.outputs[first][index].argmax(), found[first].argmax()
            agree.append(winners[0] == winners[1])
            float_right.append(winners[0] == label)
            right.append(winners[1] == label)
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

"""Our ncnn files beside other people's: layers, work, memory of blobs, and paired latency.

    python bench/ncnn_latency.py [FOLDER ...]

Each folder holds an ncnn model (`.param`, `.bin`) that ncnn's own tools made and a `reference.npz`
with `input_0`; by default these are the ncnn models of the corpus. The model is read and written
again three ways: as theirs is, as qconvert writes it, and as it would write it without rewriting
layers. The three run in turns, in children of one thread; times are medians.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from qconvert.backends.ncnn.cost import Cost, cost_of, measure
from qconvert.backends.ncnn.finish import finish
from qconvert.backends.ncnn.lower import lower
from qconvert.backends.ncnn.optimize import optimize as rewrite
from qconvert.backends.ncnn.writer import write
from qconvert.formats import ncnn_param
from qconvert.frontends import ncnn
from qconvert.graph import input_shapes
from qconvert.passes.order import optimize
from qconvert.report import Report
from qconvert.runtimes.ncnn import NcnnRuntime
from qconvert.source import ReadOptions, Source

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 41


def ours(source: Source, inputs: dict[str, tuple[int, ...]], folder: Path) -> dict[str, Cost]:
    """Write both of ours; name → cost."""
    costs: dict[str, Cost] = {}
    for stem in ("ours", "plain"):
        model = ncnn.read(source, ReadOptions(input_shapes=inputs), Report())
        if stem == "ours":
            optimize(model, Report())
        net = lower(model).net
        if stem == "ours":
            rewrite(net)
        finished = finish(net)
        write(finished, folder, stem)
        costs[stem] = cost_of(finished)
    return costs


def opened(param: Path, weights: Path, name: str, outputs: list[str]) -> NcnnRuntime:
    """A network with one input, in a child."""
    return NcnnRuntime(
        param, weights, inputs={name: name}, outputs={blob: (blob, ()) for blob in outputs}
    )


def shapes_of(runtime: NcnnRuntime, network: ncnn_param.Network, x: np.ndarray) -> dict[str, tuple]:
    """Every blob's dimensions, read while it runs."""
    [entry] = [layer.outputs[0] for layer in network.layers if layer.kind == "Input"]
    blobs = [blob for blob in network.blobs if blob != entry]
    found = runtime.extract({entry: x[0]}, blobs)
    return {blob: array.shape for blob, array in found.items()} | {entry: x.shape[1:]}


def bench(folder: Path) -> None:
    """One model, three ways."""
    source = Source(next(folder.glob("*.param")), next(folder.glob("*.bin")))
    with np.load(folder / "reference.npz", allow_pickle=False) as held:
        x = np.asarray(held["input_0"], dtype=np.float32)
    network = ncnn_param.parse(source.model.read_text(), origin=source.model.name)
    [entry] = [layer.outputs[0] for layer in network.layers if layer.kind == "Input"]
    model = ncnn.read(source, ReadOptions(input_shapes={entry: x.shape}), Report())
    outputs = [str(value.name) for value in model.graph.outputs]
    assert list(input_shapes(model)) == [entry]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        place = Path(name)
        costs = ours(source, {entry: x.shape}, place)
        assert source.weights is not None
        files = {"theirs": (source.model, source.weights)}
        files |= {stem: (place / f"{stem}.param", place / f"{stem}.bin") for stem in costs}
        runtimes = {
            stem: stack.enter_context(opened(*pair, entry, outputs)) for stem, pair in files.items()
        }
        costs["theirs"] = measure(network, shapes_of(runtimes["theirs"], network, x))
        times: dict[str, list[float]] = {stem: [] for stem in runtimes}
        for _ in range(ROUNDS):
            for stem, runtime in runtimes.items():
                times[stem].append(1000 * runtime.latency({entry: x}))
    for stem, cost in sorted(costs.items(), reverse=True):
        ratio = statistics.median(a / b for a, b in zip(times[stem], times["theirs"], strict=True))
        sys.stdout.write(
            f"{folder.name:<22} {stem:<7} {cost.layers:>5} {cost.macs / 1e6:>9.1f} "
            f"{cost.blob_bytes / 1e6:>8.2f} {statistics.median(times[stem]):>8.2f} {ratio:>7.3f}\n"
        )


def main() -> None:
    """Print one line a model and way."""
    corpus = Path(os.environ.get("QCONVERT_CORPUS", ROOT.parent / "shared" / "corpus"))
    folders = [Path(word) for word in sys.argv[1:]] or sorted((corpus / "models").glob("ncnn_*"))
    if not folders:
        sys.exit("no models: give folders, or set QCONVERT_CORPUS")
    sys.stdout.write(
        f"{'model':<22} {'way':<7} {'layers':>5} {'MMACs':>9} {'blobs MB':>8} {'ms':>8} ratio\n"
    )
    for folder in folders:
        bench(folder)


if __name__ == "__main__":
    main()

"""What calibration costs, next to other ways of doing the same.

    python bench/calibration.py [images]

- `kl` on `images` inputs (default 128): processor time against onnxruntime's entropy calibrator
  with the tensors that `quantize_static` has it watch, and peak memory against `kl` on a quarter
  of them. The network is SqueezeNet where the corpus is (QCONVERT_CORPUS, as in the tests), else
  the digits sample. With the corpus and an `ncnn2table` (on the PATH, or NCNN2TABLE names it) also
  against that, from its start to its end.
- `easyquant`, layer by layer: processor time of the paper's search written down plainly
  (bench/paper_search.py) against that of ours, what it does around its layers included; once for
  the same task, scales alone, and once with all that the default does beyond it. On the digits
  sample in full: with all channels of a candidate in one run, and with runs for every channel. With
  the corpus also on some layers of SqueezeNet: the two rounds it takes at least, from the time of a
  few candidates.

Every measurement is a process of its own with one thread. Figures are ratios of the same run.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir
from paper_search import Plain, search_layer

from qconvert.calibration.run import calibrate
from qconvert.calibration.settings import Settings
from qconvert.dataset.preprocessing import read_keys
from qconvert.dataset.reader import open_dataset
from qconvert.graph import input_shapes
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.order import optimize
from qconvert.passes.planning import plan
from qconvert.pipeline.data import dataset_for
from qconvert.pipeline.load import load
from qconvert.plan import OpRule, Policy, Scheme
from qconvert.progress import Quiet
from qconvert.recipe import Recipe
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qconvert.calibration.result import Calibrated
    from qconvert.plan import Plan
    from qconvert.quant import F32

ROOT: Final = Path(__file__).resolve().parents[1]
CORPUS: Final = Path(os.environ.get("QCONVERT_CORPUS", ROOT.parent / "shared" / "corpus"))
DIGITS: Final = ROOT / "samples" / "digits"
SEARCHED: Final = 50  # images of the search
CHUNK: Final = 8  # images whose activations onnxruntime's calibrator holds at a time
FEW: Final = 4  # candidates that stand for a hundred on SqueezeNet
AIM_KL: Final = 0.3
AIM_NCNN: Final = 2
AIM_MEMORY_MB: Final = 300
AIM_SEARCH: Final = 100
_ENVIRONMENT: Final = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

LINEAR: Final = Policy(
    "inputs and weights of linear layers",
    {kind: OpRule(kind, "compute", weights="channel") for kind in ("Conv", "Gemm")},
    weight_bits=frozenset({8}),
    activation_bits=frozenset({8}),
)


def _prepare(folder: Path, files: list[Path], images: Path, keys: Path, count: int) -> None:
    """Write the optimized float network and `count` preprocessed inputs."""
    model = load(files, Recipe().reading, Report()).model
    optimize(model, Report())
    ir.save(model, folder / "model.onnx")
    name = next(iter(input_shapes(model)))
    data = dataset_for(model, images, read_keys(keys))
    rows = [sample.inputs[name] for sample in data.subset([i % len(data) for i in range(count)])]
    np.save(folder / "inputs.npy", np.concatenate(rows))


def _peak_mb() -> float:
    """Largest resident size of this process so far (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _read(folder: Path) -> tuple[ir.Model, Plan]:
    model = load([folder / "model.onnx"], Recipe().reading, Report()).model
    optimize(model, Report())
    return model, plan(model, LINEAR, Scheme(), Report())


def _calibrate(
    folder: Path, model: ir.Model, layout: Plan, count: int, settings: Settings
) -> Calibrated:
    data = open_dataset(folder / "inputs.npy", input_shapes(model), preprocessing=None, jobs=1)
    return calibrate(model, layout, data.subset(list(range(count))), settings, Report(), Quiet())


def _ours(folder: Path, count: int, settings: Settings) -> dict[str, Any]:
    """Calibrate and tell processor time and memory on top of the loaded network."""
    model, layout = _read(folder)
    before, begin = _peak_mb(), time.process_time()
    found = _calibrate(folder, model, layout, count, settings)
    spent = time.process_time() - begin
    # What is spent on the start and around the layers goes to each by its share.
    total = max(sum(row.seconds for row in found.layers), 1e-9)
    layers = {row.name: spent * row.seconds / total for row in found.layers}
    return {"cpu": spent, "peak_mb": _peak_mb() - before, "layers": layers}


def _kl(folder: Path, count: int) -> dict[str, Any]:
    return _ours(folder, count, Settings(method="kl", threads=1))


def _easyquant(folder: Path, count: int) -> dict[str, Any]:
    return _ours(folder, count, Settings(method="easyquant", threads=1))


def _scales(folder: Path, count: int) -> dict[str, Any]:
    """What the paper does and no more: the weights stay as they are and round to nearest."""
    plain = Settings(method="easyquant", refit=False, rounding="nearest", threads=1)
    return _ours(folder, count, plain)


def _entropy(folder: Path, count: int) -> dict[str, Any]:
    """The calibrator of onnxruntime as its `quantize_static` calls it, a few images at a time."""
    import onnxruntime as ort
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    inputs = np.load(folder / "inputs.npy", mmap_mode="r")[:count]
    name = next(iter(input_shapes(_read(folder)[0])))

    class Rows(CalibrationDataReader):  # type: ignore[misc] # comes without types
        def __init__(self, rows: F32) -> None:
            self.rows: Iterator[Any] = iter(rows)

        def get_next(self) -> dict[str, Any] | None:
            row = next(self.rows, None)
            return None if row is None else {name: np.ascontiguousarray(row[None])}

    before, begin = _peak_mb(), time.process_time()
    calibrator = create_calibrator(
        folder / "model.onnx",
        sorted({*QLinearOpsRegistry, *QDQRegistry}),
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=CalibrationMethod.Entropy,
    )
    # The calibrator's own session takes every core, and threads that wait spin.
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    calibrator.infer_session = ort.InferenceSession(
        str(folder / "augmented.onnx"), options, providers=["CPUExecutionProvider"]
    )
    for start in range(0, count, CHUNK):
        calibrator.collect_data(Rows(inputs[start : start + CHUNK]))
    calibrator.compute_data()
    return {"cpu": time.process_time() - begin, "peak_mb": _peak_mb() - before}


def _paper(folder: Path, count: int, plain: Plain, step: int = 1) -> dict[str, Any]:
    """The plain search on every `step`-th layer; inputs come from a prefix quantized by kl."""
    model, layout = _read(folder)
    start = _calibrate(folder, model, layout, count, Settings(method="kl", threads=1)).encodings
    inputs = np.load(folder / "inputs.npy")[:count]
    name = next(iter(input_shapes(model)))
    nodes = {str(node.name): node for node in model.graph}
    quantized = insert_qdq(model, layout, start)
    layers: dict[str, float] = {}
    for layer in layout.layers[::step]:
        assert layer.weight is not None
        seen = inputs if layer.input == name else _values(quantized, layer.input, name, inputs)
        values = seen, _values(model, layer.output, name, inputs)
        params = start.weights[layer.weight], start.activations[layer.input]
        begin = time.process_time()
        search_layer(model, nodes[layer.node], values, params, plain)
        layers[layer.node] = time.process_time() - begin
    return {"cpu": sum(layers.values()), "layers": layers}


def _together(folder: Path, count: int) -> dict[str, Any]:
    return _paper(folder, count, Plain(together=True))


def _channels(folder: Path, count: int) -> dict[str, Any]:
    return _paper(folder, count, Plain(together=False))


def _sampled(folder: Path, count: int) -> dict[str, Any]:
    """A few candidates on some layers; what the full search costs at least follows.

    A first round that gains is followed by a second, which may find that it was the last.
    """
    few = _paper(folder, count, Plain(together=True, candidates=FEW, rounds=1), step=8)
    factor = (1 + 2 * 200) / (1 + 2 * FEW)
    layers = {name: spent * factor for name, spent in few["layers"].items()}
    return {"cpu": sum(layers.values()), "layers": layers}


def _values(model: ir.Model, value: str, feed: str, inputs: F32) -> F32:
    """One inner value for all inputs, [samples, ...]."""
    with OnnxRuntime(with_outputs(model, [value]), threads=1) as runtime:
        return np.concatenate([runtime.run({feed: row[None]})[value] for row in inputs])


CHILDREN: Final[dict[str, Callable[[Path, int], dict[str, Any]]]] = {
    "kl": _kl,
    "entropy": _entropy,
    "easyquant": _easyquant,
    "scales": _scales,
    "together": _together,
    "channels": _channels,
    "sampled": _sampled,
}


def _child(what: str, folder: Path, count: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", what, str(folder), str(count)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=_ENVIRONMENT)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _verdict(text: str, *, met: bool) -> None:
    print(f"{text}: {'met' if met else 'NOT MET'}")


def _squeezenet(folder: Path, count: int) -> bool:
    """Prepare SqueezeNet, where the corpus is."""
    home = CORPUS / "models" / "caffe_squeezenet_v1.1"
    if not home.is_dir():
        return False
    files = [home / "deploy.prototxt", home / "squeezenet_v1.1.caffemodel"]
    _prepare(folder, files, CORPUS / "images" / "imagenet200", home / "preprocessing.json", count)
    return True


def _digits(folder: Path, count: int) -> None:
    files = [DIGITS / "digits.prototxt", DIGITS / "digits.caffemodel"]
    _prepare(folder, files, DIGITS / "calibration", DIGITS / "preprocessing.json", count)


def _threshold_costs(folder: Path, count: int) -> None:
    """Method kl against entropy, and its memory. The digits are too small to hold kl to its aim."""
    real = _squeezenet(folder, count)
    if not real:
        _digits(folder, count)
    quarter = max(count // 4, 1)
    few, many = _child("kl", folder, quarter), _child("kl", folder, count)
    other = _child("entropy", folder, count)
    ratio = many["cpu"] / other["cpu"]
    print(f"{'SqueezeNet' if real else 'digits'}, {count} images")
    print(f"  memory of onnxruntime entropy, {CHUNK} at a time: {other['peak_mb']:.0f} MB")
    text = f"  kl / onnxruntime entropy, CPU: {ratio:.2f}"
    if real:
        _verdict(f"{text} (aim <= {AIM_KL})", met=ratio <= AIM_KL)
    else:
        print(f"{text} (fixed costs prevail on so small a network)")
    native = _ncnn2table(folder, count) if real else None
    if native is not None:
        ratio = many["cpu"] / native
        text = f"  kl / ncnn2table, CPU: {ratio:.2f} (aim <= {AIM_NCNN})"
        _verdict(text, met=ratio <= AIM_NCNN)
    _verdict(
        f"  kl, memory: {few['peak_mb']:.0f} MB for {quarter} images, {many['peak_mb']:.0f} MB for "
        f"{count} (aim <= {AIM_MEMORY_MB} MB, flat within a tenth and 5 MB)",
        met=many["peak_mb"] <= min(AIM_MEMORY_MB, 1.1 * few["peak_mb"] + 5),
    )


def _ncnn2table(folder: Path, count: int) -> float | None:
    """Processor time of ncnn's own tool on SqueezeNet and the prepared inputs; None without it."""
    tool = os.environ.get("NCNN2TABLE") or shutil.which("ncnn2table")
    home = CORPUS / "models" / "ncnn_squeezenet_v1.1"
    if tool is None or not home.is_dir():
        return None
    inputs = np.load(folder / "inputs.npy", mmap_mode="r")
    for index in range(count):
        np.save(folder / f"{index}.npy", inputs[index])
    (folder / "list.txt").write_text("".join(f"{index}.npy\n" for index in range(count)))
    height, width = inputs.shape[2:]
    files = [home / "squeezenet_v1.1.param", home / "squeezenet_v1.1.bin", "list.txt", "out.table"]
    how = ["mean=[0,0,0]", "norm=[1,1,1]", f"shape=[{width},{height},3]", "pixel=BGR", "thread=1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [tool, *files, *how, "method=kl", "type=1"],
        check=True,
        cwd=folder,
        env=_ENVIRONMENT,
        **quiet,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _compare(plain: dict[str, Any], folder: Path) -> float:
    """Print how much longer the plain search takes than ours; the ratio for scales alone."""
    scales, everything = (
        _child(what, folder, SEARCHED)["layers"] for what in ("scales", "easyquant")
    )
    for name, spent in plain["layers"].items():
        print(f"  {name}: {spent / scales[name]:.0f}")
    ratios = [
        plain["cpu"] / sum(ours[name] for name in plain["layers"]) for ours in (scales, everything)
    ]
    print(f"  these layers with weights fitted and rounded too: {ratios[1]:.0f}")
    return float(ratios[0])


def _search_costs(folder: Path) -> None:
    """Our search against the plain one, on the digits in full and on layers of SqueezeNet."""
    _digits(folder, SEARCHED)
    print(f"digits, {SEARCHED} images, plain search / easyquant, all channels in one run:")
    together = _compare(_child("together", folder, SEARCHED), folder)
    print(f"  all layers: {together:.0f}")
    print("  the same, channel after channel:")
    channels = _compare(_child("channels", folder, SEARCHED), folder)
    _verdict(f"  all layers: {channels:.0f} (aim >= {AIM_SEARCH})", met=channels >= AIM_SEARCH)
    if _squeezenet(folder, SEARCHED):
        print(f"SqueezeNet, {SEARCHED} images, two rounds, all channels in one run:")
        found = _compare(_child("sampled", folder, SEARCHED), folder)
        _verdict(f"  these layers: {found:.0f} (aim >= {AIM_SEARCH})", met=found >= AIM_SEARCH)


def main() -> None:
    """Measure and print, with the aims and whether they are met: a figure, not a test."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(CHILDREN[sys.argv[2]](Path(sys.argv[3]), int(sys.argv[4]))))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 128
    with tempfile.TemporaryDirectory() as name:
        _threshold_costs(Path(name), count)
    with tempfile.TemporaryDirectory() as name:
        _search_costs(Path(name))


if __name__ == "__main__":
    main()

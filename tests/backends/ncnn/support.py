"""Both sides of the ncnn backend: a model in onnxruntime, and its artifact in ncnn."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ncnn
import numpy as np

from qconvert.backends.ncnn import backend
from qconvert.backends.ncnn.policy import POLICY
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.planning import plan
from qconvert.plan import Scheme
from qconvert.quant import Encodings, symmetric
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs
from qconvert.target import WriteJob

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from qconvert.bundle import LayerRow, Written
    from qconvert.quant import F32


@dataclass(frozen=True)
class Artifact:
    """What the backend wrote, and what ncnn made of one input."""

    written: Written
    outputs: dict[str, F32]
    texts: dict[str, str]

    @property
    def rows(self) -> dict[str, LayerRow]:
        return {row.name: row for row in self.written.layers}

    @property
    def kinds(self) -> list[str]:
        return [line.split()[0] for line in self.texts["model.param"].splitlines()[2:]]

    def line(self, name: str) -> str:
        lines = self.texts["model.param"].splitlines()[2:]
        return next(line for line in lines if line.split()[1] == name)


def deploy(
    model: ir.Model,
    feed: Mapping[str, F32],
    *,
    float_model: ir.Model | None = None,
    options: Mapping[str, Any] | None = None,
    stem: str = "model",
    folder: Path | None = None,
) -> Artifact:
    """Write the artifact of `model` and run it once in ncnn."""
    with tempfile.TemporaryDirectory() as name:
        place = folder or Path(name)
        report = Report()
        written = backend.write(
            WriteJob(model, float_model or model, place, report, dict(options or {}))
        )
        outputs = run_files(place, model, written, feed, stem=stem)
        texts = {path.name: path.read_text() for path in place.glob("*.[pt]a*")}
        return Artifact(written, outputs, texts)


def run_files(
    folder: Path, model: ir.Model, written: Written, feed: Mapping[str, F32], *, stem: str = "model"
) -> dict[str, F32]:
    """Run a .param/.bin pair once, in this process: a child for each of many cases takes long."""
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1
    net.opt.lightmode = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    assert net.load_param(str(folder / f"{stem}.param")) == 0
    assert net.load_model(str(folder / f"{stem}.bin")) == 0
    extractor = net.create_extractor()
    for name, array in feed.items():
        # A Mat borrows the array's memory, and layers that work in place write into it.
        plain = np.ascontiguousarray(array[0])
        if name in written.extra.get("index_inputs", {}):
            plain = plain.astype(np.int32).view(np.float32)
        mat = ncnn.Mat(plain).clone()
        assert extractor.input(written.blobs.get(name, name), mat) == 0
    results = {}
    for value in model.graph.outputs:
        name = str(value.name)
        code, mat = extractor.extract(written.blobs.get(name, name))
        assert code == 0, name
        shape = [d if isinstance(d, int) else -1 for d in value.shape or ()]
        array = np.array(mat)
        results[name] = array if -1 in shape else array.reshape(shape)
    return results


def simulate(model: ir.Model, feed: Mapping[str, F32]) -> dict[str, F32]:
    """The model in onnxruntime."""
    with OnnxRuntime(model, optimize=False, threads=1) as runtime:
        return runtime.run(feed)


def quantized(
    model: ir.Model, feeds: Sequence[Mapping[str, F32]], scheme: Scheme | None = None
) -> ir.Model:
    """`model` with Q/DQ nodes, thresholds at the largest magnitudes over `feeds`."""
    planned = plan(model, POLICY, scheme or Scheme(), Report())
    encodings = Encodings()
    inputs = {str(value.name) for value in model.graph.inputs}
    names = [name for name in planned.activations if name not in inputs]
    largest: dict[str, float] = {}
    with OnnxRuntime(with_outputs(model, names), optimize=False, threads=1) as runtime:
        for feed in feeds:
            for name, array in {**feed, **(runtime.run(feed) if names else {})}.items():
                largest[name] = max(largest.get(name, 0.0), float(np.abs(array).max()))
    for name, spec in planned.activations.items():
        encodings.activations[name] = symmetric(largest[name], bits=spec.bits)
    for layer in planned.layers:
        assert layer.weight is not None
        weight = model.graph.initializers[layer.weight].const_value
        assert weight is not None
        rows = np.abs(np.moveaxis(weight.numpy(), layer.weight_axis, 0))
        channels = rows.reshape(rows.shape[0], -1).max(axis=1)
        if layer.granularity == "group":
            size = channels.size // layer.groups
            channels = np.repeat(channels.reshape(layer.groups, size).max(axis=1), size)
        encodings.weights[layer.weight] = symmetric(
            channels, bits=layer.weight_bits, axis=layer.weight_axis
        )
    return insert_qdq(model, planned, encodings)


def cosine(a: F32, b: F32) -> float:
    """Cosine of the angle between two arrays; 1 for two arrays of zeros."""
    x, y = a.astype(np.float64).reshape(-1), b.astype(np.float64).reshape(-1)
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms else float(np.array_equal(x, y))

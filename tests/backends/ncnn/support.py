"""Both sides of the ncnn backend: a model in onnxruntime, and its artifact in ncnn."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from qconvert.backends.ncnn import backend
from qconvert.backends.ncnn.policy import POLICY
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.planning import plan
from qconvert.plan import Scheme
from qconvert.quant import Encodings, symmetric
from qconvert.report import Report
from qconvert.runtimes.ncnn import NcnnRuntime
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs
from qconvert.target import WriteJob

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qconvert.bundle import LayerRow, Written
    from qconvert.quant import F32


def model_of(body: str, **weights: np.ndarray) -> ir.Model:
    """A valid model from the text of a graph and its initializers."""
    text = f'<ir_version: 10, opset_import: ["" : 21]>\n{body}'
    # The reader of ONNX text warns of inputs it has not seen yet: initializers come after.
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    model = ir.from_onnx_text(text, [ir.tensor(array, name=k) for k, array in weights.items()])
    for index, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type.lower()}_{index}"
    common.ShapeInferencePass()(model)
    common.CheckerPass()(model)
    return model


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
        with open_artifact(place, model, written, stem=stem) as runtime:
            outputs = runtime.run(feed)
        texts = {path.name: path.read_text() for path in place.iterdir() if path.suffix != ".bin"}
        return Artifact(written, outputs, texts)


def open_artifact(
    folder: Path, model: ir.Model, written: Written, *, stem: str = "model"
) -> NcnnRuntime:
    """The artifact in ncnn."""
    blobs = written.blobs
    inputs = [str(value.name) for value in model.graph.inputs if value.const_value is None]
    shapes = {
        str(value.name): tuple(d if isinstance(d, int) else -1 for d in value.shape or ())
        for value in model.graph.outputs
    }
    return NcnnRuntime(
        folder / f"{stem}.param",
        folder / f"{stem}.bin",
        inputs={n: blobs.get(n, n) for n in inputs},
        outputs={n: (blobs.get(n, n), shape) for n, shape in shapes.items()},
    )


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

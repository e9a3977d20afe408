"""Small networks on their way to TensorRT, and readers of what is written that are not ours."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from qconvert.backends.tensorrt import backend
from qconvert.backends.tensorrt.policy import POLICY
from qconvert.graph import input_shapes
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.planning import plan
from qconvert.plan import Scheme
from qconvert.quant import Encodings, symmetric
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs
from qconvert.target import WriteJob
from tests.backends.graphs import model_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qconvert.bundle import LayerRow, Written
    from qconvert.plan import Plan
    from qconvert.quant import F32


def weights_for(rng: np.random.Generator, **shapes: tuple[int, ...]) -> dict[str, F32]:
    """Random weights of the given shapes."""
    return {
        name: rng.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
        for name, shape in shapes.items()
    }


def planned(model: ir.Model, scheme: Scheme | None = None) -> Plan:
    """The plan that TensorRT's policy makes."""
    return plan(model, POLICY, scheme or Scheme(), Report())


def quantized(model: ir.Model, feed: Mapping[str, F32], *, weight_factor: float = 1.0) -> ir.Model:
    """`model` with Q/DQ nodes, thresholds at the largest magnitudes on `feed`."""
    encodings = encodings_for(model, feed, weight_factor=weight_factor)
    return insert_qdq(model, planned(model), encodings)


def encodings_for(
    model: ir.Model, feed: Mapping[str, F32], *, weight_factor: float = 1.0
) -> Encodings:
    """Scales at the largest magnitudes on `feed`."""
    layout = planned(model)
    names = [name for name in layout.scaled if name not in feed]
    seen = dict(feed)
    if names:
        with OnnxRuntime(with_outputs(model, names), optimize=False, threads=1) as runtime:
            seen |= runtime.run(feed)
    encodings = Encodings()
    for name in layout.scaled:
        encodings.activations[name] = symmetric(float(np.abs(seen[name]).max()))
    for layer in layout.layers:
        if layer.weight is None:
            continue
        weight = model.graph.initializers[layer.weight].const_value
        assert weight is not None
        rows = np.abs(np.moveaxis(weight.numpy(), layer.weight_axis, 0))
        limits = rows.reshape(len(rows), -1).max(axis=1) * weight_factor
        encodings.weights[layer.weight] = symmetric(limits, axis=layer.weight_axis)
    return encodings


@dataclass(frozen=True)
class Bundle:
    """What the backend wrote."""

    folder: Path
    written: Written
    report: Report
    inputs: Mapping[str, tuple[int, ...]]

    @property
    def rows(self) -> dict[str, LayerRow]:
        return {row.name: row for row in self.written.layers}

    @property
    def files(self) -> set[str]:
        return {file.path for file in self.written.files}

    @property
    def cache(self) -> dict[str, np.float32]:
        """The cache, read with nothing but `struct`: name → float32 scale."""
        lines = (self.folder / "calibration.cache").read_bytes().decode().split("\n")
        assert lines[-1] == ""
        pairs = [line.split(": ") for line in lines[1:-1]]
        assert all(len(digits) == 8 for _, digits in pairs)
        return {
            name: np.float32(struct.unpack(">f", bytes.fromhex(digits))[0])
            for name, digits in pairs
        }

    def model(self, name: str) -> ir.Model:
        return ir.load(self.folder / name)

    def run(self, name: str, feed: Mapping[str, F32]) -> dict[str, F32]:
        return run_file(self.folder / name, feed)


def run_file(path: Path, feed: Mapping[str, F32]) -> dict[str, F32]:
    """A file in onnxruntime, unoptimized."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feed)), strict=True))


def run(model: ir.Model, feed: Mapping[str, F32]) -> dict[str, F32]:
    """A graph in onnxruntime, unoptimized."""
    with OnnxRuntime(model, optimize=False, threads=1) as runtime:
        return runtime.run(feed)


def write(
    folder: Path,
    model: ir.Model,
    plain: ir.Model | None = None,
    *,
    version: str = "8.6.1",
    **options: object,
) -> Bundle:
    """Write the artifact of a Q/DQ model and its float model."""
    folder.mkdir(parents=True, exist_ok=True)
    report = Report()
    job = WriteJob(model, plain or model, folder, report, {"trt_version": version, **options})
    return Bundle(folder, backend.BACKEND.write(job), report, input_shapes(model))


RESIDUAL = """net (float[1, 3, 16, 16] data) => (float[1, 10] prob) {
    c1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(data, w1, b1)
    r1 = Relu(c1)
    p1 = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r1)
    c2 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(p1, w2, b2)
    r2 = Relu(c2)
    c3 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(r2, w3, b3)
    s = Add(c3, p1)
    r3 = Relu(s)
    c4 = Conv<kernel_shape = [1, 1]>(r3, w4, b4)
    r4 = Relu(c4)
    c5 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(r3, w5, b5)
    r5 = Relu(c5)
    cat = Concat<axis = 1>(r4, r5)
    g = GlobalAveragePool(cat)
    f = Flatten<axis = 1>(g)
    fc = Gemm<transB = 1>(f, w6, b6)
    prob = Softmax<axis = 1>(fc)
}"""
"""A residual block, a fire module, and a classifier: every rule of placement at once."""


def residual(rng: np.random.Generator) -> ir.Model:
    """`RESIDUAL` with random weights."""
    return model_of(
        RESIDUAL,
        **weights_for(
            rng, w1=(16, 3, 3, 3), w2=(16, 16, 3, 3), w3=(16, 16, 3, 3), w4=(16, 16, 1, 1),
            w5=(32, 16, 3, 3), w6=(10, 48), b1=(16,), b2=(16,), b3=(16,), b4=(16,), b5=(32,),
            b6=(10,),
        ),
    )  # fmt: skip


def image(rng: np.random.Generator) -> dict[str, F32]:
    """An input of `RESIDUAL`."""
    return {"data": rng.normal(size=(1, 3, 16, 16)).astype(np.float32)}


def cosine(a: F32, b: F32) -> float:
    """Cosine of the angle between two arrays."""
    x, y = a.astype(np.float64).reshape(-1), b.astype(np.float64).reshape(-1)
    return float(x @ y) / float(np.linalg.norm(x) * np.linalg.norm(y))

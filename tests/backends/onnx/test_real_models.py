"""Bundles of real models in onnxruntime as users run it: optimized or not, integer kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx_ir.passes import common

import qconvert
from qconvert.graph import sole_consumer
from qconvert.qdq import codes_of, pair_of
from qconvert.runtimes.onnx import with_outputs
from qconvert.verification.metrics import cosine

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.quant import F32

pytestmark = pytest.mark.slow

MODELS = ["onnx_resnet20_cifar10_fp32", "onnx_mobilenet_v1_025"]
OFF = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
ALL = ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def session(
    model: bytes, level: ort.GraphOptimizationLevel, kept: Path | None = None
) -> ort.InferenceSession:
    """As a user makes it, nothing disabled, but int8 activations in integer kernels on x86 too."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    if kept is not None:
        options.optimized_model_filepath = str(kept)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@pytest.fixture(params=MODELS)
def bundle(request: pytest.FixtureRequest, corpus: Path, tmp_path: Path) -> tuple[Path, list[F32]]:
    """A Q/DQ bundle of a real model, and its inputs."""
    folder = corpus / "models" / str(request.param)
    suffixes = {".onnx", ".prototxt", ".caffemodel"}
    files = [path for path in folder.iterdir() if path.suffix in suffixes]
    data = np.load(folder / "reference.npz")
    samples = [data[key] for key in sorted(data.files) if key.startswith("input_")]
    np.save(tmp_path / "x.npy", np.concatenate(samples))
    qconvert.convert(
        *files,
        output=tmp_path / "out",
        to="onnx",
        calib=tmp_path / "x.npy",
        method="minmax",
        # Behind a Relu: int8 codes around 0 leave the Relu an operator of its own.
        activation_type="uint8",
    )
    return tmp_path / "out" / "model.qdq.onnx", samples[:2]


def test_every_level_of_optimization_gives_the_same(bundle: tuple[Path, list[F32]]) -> None:
    path, samples = bundle
    onnx.checker.check_model(str(path))
    plain, fused = (session(path.read_bytes(), level) for level in (OFF, ALL))

    for x in samples:
        feed = {plain.get_inputs()[0].name: x}
        for left, right in zip(plain.run(None, feed), fused.run(None, feed), strict=True):
            # Sums next to the middle of two codes are rounded up here and down there, and such
            # codes grow through a deep network; the next test takes it layer by layer.
            assert cosine(left, right) > 0.995
            assert left.argmax() == right.argmax()


def layer_alone(model: ir.Model, layer: ir.Node) -> tuple[ir.Model, str] | None:
    """A layer from the float value it quantizes to the codes of the next, and that value's name."""
    value = layer.outputs[0]
    reader = sole_consumer(value)
    if reader is not None and reader.op_type in {"Relu", "Clip"}:
        value = reader.outputs[0]
    quantizers = [node for node in value.consumers() if node.op_type == "QuantizeLinear"]
    pair = pair_of(layer.inputs[0])
    if not quantizers or pair is None:
        return None
    alone = with_outputs(model, [str(quantizers[0].outputs[0].name)])
    values = {str(v.name): v for node in alone.graph for v in node.outputs}
    values |= {str(v.name): v for v in alone.graph.inputs}
    source = values[str(pair.source.name)]
    entry = ir.val("entry", type=source.type, shape=source.shape)
    source.replace_all_uses_with(entry)
    alone.graph.inputs.clear()
    alone.graph.inputs.append(entry)
    common.RemoveUnusedNodesPass()(alone)
    return alone, str(pair.source.name)


def test_integer_kernels_are_within_one_code_of_each_layer(
    bundle: tuple[Path, list[F32]], tmp_path: Path
) -> None:
    path, samples = bundle
    model = ir.load(path)
    compared, integer = 0, 0
    for layer in model.graph:
        if layer.op_type != "Conv" or codes_of(layer.inputs[1]) is None:
            continue
        found = layer_alone(model, layer)
        if found is None:
            continue
        alone, source = found
        content = ir.to_proto(alone).SerializeToString()
        plain = session(content, OFF)
        fused = session(content, ALL, tmp_path / "fused.onnx")
        kinds = {node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node}
        integer += "QLinearConv" in kinds
        for x in samples:
            entry = x
            if source != model.graph.inputs[0].name:
                inner = ir.to_proto(with_outputs(model, [source])).SerializeToString()
                (entry,) = session(inner, OFF).run(None, {model.graph.inputs[0].name: x})
            left, right = (each.run(None, {"entry": entry})[0] for each in (plain, fused))
            apart = np.abs(left.astype(np.int32) - right.astype(np.int32))
            assert apart.max() <= 1, layer.name
            assert (apart > 0).mean() < 0.01, layer.name
        compared += 1

    assert compared
    assert integer > 0.8 * compared

"""What a bundle holds, and that its files say the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qconvert.backends.tensorrt import backend
from qconvert.bundle import BundleFile, Manifest
from qconvert.errors import UnsupportedError, UsageError
from qconvert.functions.build import call
from qconvert.report import Report
from qconvert.target import WriteJob
from tests.backends.graphs import model_of
from tests.backends.tensorrt.support import (
    cosine,
    image,
    quantized,
    residual,
    run,
    weights_for,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.backends.tensorrt.support import Bundle

ALWAYS = {"model.onnx", "ranges.json", "layer_precisions.txt"}


@dataclass(frozen=True)
class Case:
    version: str
    files: set[str] = field(default_factory=set)
    opset: int = 17

    @property
    def id(self) -> str:
        return self.version


CASES = [
    Case("5.1.5", {"calibration.cache"}, 9),
    Case("6.0.1", {"calibration.cache"}, 10),
    Case("7.2.3", {"calibration.cache"}, 11),
    Case("8.0.1", {"calibration.cache", "model.qdq.onnx"}, 13),
    Case("8.6.1", {"calibration.cache", "model.qdq.onnx"}, 17),
    Case("9.3.0", {"calibration.cache", "model.qdq.onnx"}, 19),
    Case("10.3.0", {"calibration.cache", "model.qdq.onnx"}, 20),
    Case("11.0", {"model.qdq.onnx"}, 20),
]


def manifest_of(bundle: Bundle) -> Manifest:
    files = [BundleFile(file.path, file.role) for file in bundle.written.files]
    return Manifest(
        "tensorrt", "0", {},
        [{"name": name, "shape": list(shape)} for name, shape in bundle.inputs.items()], [],
        layers=list(bundle.written.layers),
        files=files,
        blobs=dict(bundle.written.blobs),
        extra=dict(bundle.written.extra),
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_each_version_gets_what_it_reads_and_it_does_what_the_model_does(
    case: Case, tmp_path: Path, rng: np.random.Generator
) -> None:
    model, feed = residual(rng), image(rng)
    exact, simulated = run(model, feed)["prob"], run(quantized(model, feed), feed)["prob"]

    bundle = write(tmp_path, quantized(model, feed), model, version=case.version)

    assert bundle.files == ALWAYS | case.files
    for name in bundle.files:
        if name.endswith(".onnx"):
            proto = onnx.load(tmp_path / name)
            assert proto.opset_import[0].version == case.opset
            onnx.checker.check_model(proto, full_check=True)
    assert cosine(bundle.run("model.onnx", feed)["prob"], exact) > 0.999
    runtime = backend.BACKEND.open(tmp_path, manifest_of(bundle))
    np.testing.assert_allclose(runtime.run(feed)["prob"], simulated, atol=2e-3)
    assert list(backend.BACKEND.check(tmp_path, manifest_of(bundle))) == []


def test_every_activation_has_a_row_and_every_row_a_tensor(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    model, feed = residual(rng), image(rng)

    bundle = write(tmp_path, quantized(model, feed), model)

    graph = onnx.load(tmp_path / "model.onnx").graph
    tensors = {value.name for value in graph.input}
    tensors |= {name for node in graph.node for name in node.output}
    assert set(bundle.cache) == tensors
    scales = np.array(list(bundle.cache.values()))
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
    header = (tmp_path / "calibration.cache").read_text().splitlines()[0]
    assert header == "TRT-8601-EntropyCalibration2"


def test_cache_and_pairs_have_the_same_scales(tmp_path: Path, rng: np.random.Generator) -> None:
    model, feed = residual(rng), image(rng)

    bundle = write(tmp_path, quantized(model, feed), model)

    proto = onnx.load(tmp_path / "model.qdq.onnx")
    held = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    pairs = {
        node.input[0]: held[node.input[1]]
        for node in proto.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in held
    }
    assert set(pairs) == {"data", "p1", "r2", "r3", "cat", "gemm_15/map"}
    assert {name: float(scale) for name, scale in pairs.items()} == {
        name: float(bundle.cache[name]) for name in pairs
    }


def test_what_is_moved_shares_a_scale(tmp_path: Path, rng: np.random.Generator) -> None:
    model, feed = residual(rng), image(rng)

    cache = write(tmp_path, quantized(model, feed), model).cache

    assert cache["c1"] == cache["r1"] == cache["p1"]
    assert cache["r4"] == cache["c4"] == cache["r5"] == cache["cat"]
    assert cache["g"] == cache["f"] == cache["gemm_15/map"]
    assert cache["gemm_15/product"] == cache["fc"]
    assert cache["prob"] == pytest.approx(np.float32(1 / 127), rel=0.9)


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
def test_tensorrt_derives_the_searched_weight_scales_where_it_can(
    factor: float, tmp_path: Path, rng: np.random.Generator
) -> None:
    model, feed = residual(rng), image(rng)

    bundle = write(tmp_path, quantized(model, feed, weight_factor=factor), model)

    held = {
        t.name: onnx.numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "model.onnx").graph.initializer
    }
    for node in onnx.load(tmp_path / "model.onnx").graph.node:
        if node.op_type != "Conv":
            continue
        rows = np.abs(held[node.input[1]]).reshape(len(held[node.input[1]]), -1)
        derived = rows.max(axis=1) / np.float32(127)
        searched = np.asarray(bundle.rows[node.name].weight_scale, np.float32)
        if factor <= 1:
            np.testing.assert_array_equal(derived, searched)
        else:
            np.testing.assert_allclose(derived, searched / factor, rtol=1e-6)
    told = [warning for warning in bundle.report.warnings if "weight scale is wider" in warning]
    assert len(told) == (factor > 1)


def test_version_11_keeps_the_float_weights(tmp_path: Path, rng: np.random.Generator) -> None:
    model, feed = residual(rng), image(rng)

    bundle = write(tmp_path, quantized(model, feed, weight_factor=0.5), model, version="11.0")

    exact = run(model, feed)["prob"]
    np.testing.assert_allclose(bundle.run("model.onnx", feed)["prob"], exact, atol=1e-6)


def test_layers_left_in_float_are_listed(tmp_path: Path, rng: np.random.Generator) -> None:
    model, feed = residual(rng), image(rng)

    bundle = write(tmp_path, quantized(model, feed), model)

    assert (tmp_path / "layer_precisions.txt").read_text() == "softmax_16:fp16\n"
    plain, cached = bundle.written.extra["commands"]
    assert plain == "trtexec --onnx=model.qdq.onnx --int8 --fp16 --saveEngine=model.engine"
    assert "--calib=calibration.cache" in cached
    assert "--layerPrecisions=softmax_16:fp16" in cached


def test_a_float_bundle_is_one_model(tmp_path: Path, rng: np.random.Generator) -> None:
    model, feed = residual(rng), image(rng)

    bundle = write(tmp_path, model)

    assert bundle.files == {"model.onnx"}
    np.testing.assert_allclose(
        bundle.run("model.onnx", feed)["prob"], run(model, feed)["prob"], atol=1e-6
    )
    assert all(row.bits == 32 for row in bundle.rows.values())


def test_writing_leaves_the_models_as_they_were(tmp_path: Path, rng: np.random.Generator) -> None:
    plain = residual(rng)
    model = quantized(plain, image(rng))
    before = [ir.to_proto(m).SerializeToString() for m in (model, plain)]

    write(tmp_path, model, plain)

    assert [ir.to_proto(m).SerializeToString() for m in (model, plain)] == before


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        rng = np.random.default_rng(7)
        model, feed = residual(rng), image(rng)
        write(tmp_path / name, quantized(model, feed), model)
        contents.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})

    assert contents[0] == contents[1]


NAMES = """net (float[1, 16, 4, 4] x) => (float[1, 16, 4, 4] y) {
    a = Conv(x, w1)
    b = Relu(a)
    y = Conv(b, w2)
}"""


def test_names_that_readers_split_are_changed_everywhere(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    model = model_of(NAMES, **weights_for(rng, w1=(16, 16, 1, 1), w2=(16, 16, 1, 1)))
    feed = {"x": rng.normal(size=(1, 16, 4, 4)).astype(np.float32)}
    renamed = quantized(model, feed)
    names = {"x": "the: input", "b": "a\nb", "y": " out ", "a": "conv:0"}
    for graph in (model.graph, renamed.graph):
        for value in (*graph.inputs, *(v for node in graph for v in node.outputs)):
            value.name = names.get(str(value.name), value.name)
    expected = run(renamed, {"the: input": feed["x"]})[" out "]

    bundle = write(tmp_path, renamed, model)

    assert set(bundle.cache) == {"the:_input", "conv:0", "a_b", "out"}
    assert bundle.written.blobs == {"the: input": "the:_input", " out ": "out"}
    given = backend.BACKEND.open(tmp_path, manifest_of(bundle)).run({"the: input": feed["x"]})
    np.testing.assert_allclose(given[" out "], expected, atol=1e-5)
    assert any("cannot stand in a calibration cache" in text for text in bundle.report.warnings)
    assert any("hold a colon" in text for text in bundle.report.warnings)


def test_functions_are_expanded_before_the_opset_changes(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    model = model_of(NAMES, **weights_for(rng, w1=(16, 16, 1, 1), w2=(16, 16, 1, 1)))
    output = model.graph.outputs[0]

    def body(tape: ir.tape.Tape, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        axes = tape.op("Constant", [], {"value_ints": [1]})
        return [tape.op("ReduceMean", [inputs[0], axes])]

    node = call(model, "Mean", [output], {}, body, name="mean")
    node.outputs[0].name = "z"
    node.outputs[0].type, node.outputs[0].shape = output.type, ir.Shape((1, 1, 4, 4))
    model.graph.append(node)
    model.graph.outputs[0] = node.outputs[0]
    feed = {"x": rng.normal(size=(1, 16, 4, 4)).astype(np.float32)}

    bundle = write(tmp_path, model, version="8.0.1")

    saved = onnx.load(tmp_path / "model.onnx")
    assert saved.graph.node[-1].op_type == "ReduceMean"
    assert [a.name for a in saved.graph.node[-1].attribute] == ["axes"]
    np.testing.assert_allclose(
        bundle.run("model.onnx", feed)["z"], run(model, feed)["z"], atol=1e-5
    )


def test_what_a_version_cannot_read_is_refused_whole(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    body = """net (float[1, 4, 4, 4] x) => (float[1, 4, 4, 4] y, float[4, 4] z) {
        y = Round(x)
        z = Einsum<equation = "abcd->cd">(x)
    }"""
    model = model_of(body)
    assert backend.BACKEND.problems(model) == []

    with pytest.raises(UnsupportedError) as error:
        write(tmp_path, model, version="7.0.0")

    assert len(error.value.problems) == 2
    assert list(tmp_path.iterdir()) == []
    del rng


def test_an_operator_that_no_version_reads_is_a_problem() -> None:
    model = model_of("""net (float[2, 2] x) => (float y) { y = Det(x) }""")

    (problem,) = backend.BACKEND.problems(model)

    assert problem.what == "operator Det"


def test_the_version_is_required(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(UsageError, match="--trt-version is missing"):
        backend.BACKEND.write(WriteJob(residual(rng), residual(rng), tmp_path, Report()))


LOWERED = """net (float[1, 16, 4, 4] x) => (float[1, 16, 4, 4] y) {
    a = Conv(x, w1)
    b = Mish(a)
    c = Conv(b, w2)
    y = Softmax<axis = 1>(c)
}"""


def test_tensors_that_come_with_an_older_opset_have_rows_too(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    model = model_of(LOWERED, **weights_for(rng, w1=(16, 16, 1, 1), w2=(16, 16, 1, 1)))
    feed = {"x": rng.normal(size=(1, 16, 4, 4)).astype(np.float32)}
    expected = run(model, feed)["y"]
    backend.BACKEND.prepare(model, {"trt_version": "7.1.3"})

    bundle = write(tmp_path, quantized(model, feed), model, version="7.1.3")

    graph = onnx.load(tmp_path / "model.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert kinds == [
        "Conv", "Softplus", "Tanh", "Mul", "Conv", "Transpose", "Softmax", "Transpose",
    ]  # fmt: skip
    assert set(bundle.cache) == {"x", *(name for node in graph.node for name in node.output)}
    assert cosine(bundle.run("model.onnx", feed)["y"], expected) > 0.9999


def test_an_activation_behind_joined_layers_is_theirs(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    body = """net (float[1, 16, 4, 4] x) => (float[1, 16, 4, 4] y) {
        a = Conv(x, w1)
        b = Conv(x, w2)
        both = Concat<axis = 1>(a, b)
        r = Relu(both)
        y = Conv(r, w3)
    }"""
    shapes = {"w1": (16, 16, 1, 1), "w2": (16, 16, 1, 1), "w3": (16, 32, 1, 1)}
    model = model_of(body, **weights_for(rng, **shapes))
    feed = {"x": rng.normal(size=(1, 16, 4, 4)).astype(np.float32)}

    write(tmp_path, quantized(model, feed), model)

    assert (tmp_path / "layer_precisions.txt").read_text() == ""

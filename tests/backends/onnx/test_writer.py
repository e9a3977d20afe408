"""ONNX bundles: what is written, what the manifest says of it, what onnxruntime makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx_ir.passes.common import ShapeInferencePass

from qconvert.backends import BACKENDS
from qconvert.bundle import BundleFile, Manifest
from qconvert.errors import ModelFormatError
from qconvert.functions.build import call
from qconvert.graph import input_shapes
from qconvert.report import Report
from qconvert.target import WriteJob

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qconvert.bundle import Written

ONNX = BACKENDS["onnx"]
LEVELS = [
    ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
]


def graph(text: str, **weights: np.ndarray) -> ir.Model:
    head = '<ir_version: 10, opset_import: ["" : 21]>\n'
    tensors = [ir.tensor(array, name=name) for name, array in weights.items()]
    model = ir.from_onnx_text(head + text, initializers=tensors)
    for index, node in enumerate(model.graph):
        node.name = f"{node.op_type}_{index}"
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        value.shape, value.dtype = (
            ir.Shape(value.const_value.shape.numpy()),
            value.const_value.dtype,
        )
    ShapeInferencePass()(model)
    return model


FLOAT = """g (float[1, 4, 6, 6] x) => (float[1, 8, 4, 4] y) {
    c = Conv(x, w, b)
    y = Relu(c)
}"""
QUANTIZED = """g (float[1, 4, 6, 6] x) => (float[1, 8, 4, 4] y) {
    xq = QuantizeLinear(x, xs, xz)
    xd = DequantizeLinear(xq, xs, xz)
    wd = DequantizeLinear<axis = 0>(w, ws, wz)
    c = Conv(xd, wd, b)
    y = Relu(c)
}"""
CLIPPED = QUANTIZED.replace(
    "xd = DequantizeLinear(xq", "xc = Clip(xq, low, high)\n    xd = DequantizeLinear(xc"
)


def float_model(rng: np.random.Generator) -> ir.Model:
    return graph(
        FLOAT,
        w=rng.normal(size=(8, 4, 3, 3)).astype(np.float32),
        b=rng.normal(size=8).astype(np.float32),
    )


def quantized_model(rng: np.random.Generator, bits: int = 8) -> ir.Model:
    top = 2 ** (bits - 1) - 1
    storage = np.int16 if bits > 8 else np.int8
    codes = rng.integers(-top, top + 1, size=(8, 4, 3, 3)).astype(storage)
    codes[0, 0, 0, 0] = top
    narrow = {"low": np.array(-top, storage), "high": np.array(top, storage)} if bits < 8 else {}
    return graph(
        CLIPPED if bits < 8 else QUANTIZED,
        w=codes,
        b=rng.normal(size=8).astype(np.float32),
        ws=rng.uniform(0.001, 0.01, size=8).astype(np.float32),
        wz=np.zeros(8, storage),
        xs=np.array(2.5 / top, np.float32),
        xz=np.array(0, storage),
        **narrow,
    )


def write(
    folder: Path, model: ir.Model, plain: ir.Model | None = None, **options: object
) -> tuple[Written, Manifest]:
    job = WriteJob(model, plain or model, folder, Report(), options)
    written = ONNX.write(job)
    files = [BundleFile(file.path, file.role) for file in written.files]
    inputs = [{"name": name, "shape": list(shape)} for name, shape in input_shapes(model).items()]
    rows = list(written.layers)
    return written, Manifest("onnx", "0", {}, inputs, [], files=files, layers=rows)


def outputs(path: Path, x: np.ndarray, level: object) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_a_float_bundle_is_one_model(tmp_path: Path, rng: np.random.Generator) -> None:
    written, manifest = write(tmp_path, float_model(rng))

    assert [(file.path, file.role) for file in written.files] == [("model.onnx", "model")]
    assert [(row.name, row.type, row.bits) for row in written.layers] == [("Conv_0", "Conv", 32)]
    assert not manifest.quantized
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)


def test_a_quantized_bundle_holds_both_models(tmp_path: Path, rng: np.random.Generator) -> None:
    model = quantized_model(rng)
    scales = model.graph.initializers["ws"].const_value
    assert scales is not None

    written, manifest = write(tmp_path, model, float_model(rng))

    assert [(file.path, file.role) for file in written.files] == [
        ("model.qdq.onnx", "model"),
        ("float.onnx", "float-model"),
    ]
    (row,) = written.layers
    assert row.weight_scale == [float(scale) for scale in scales.numpy()]
    assert row.input_scale == pytest.approx(2.5 / 127)
    x = {"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)}
    assert ONNX.open(tmp_path, manifest).run(x)["y"].shape == (1, 8, 4, 4)
    assert ONNX.open_float(tmp_path, manifest).run(x)["y"].shape == (1, 8, 4, 4)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8, 16])
def test_the_width_is_read_from_codes_and_clip(
    bits: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    written, _ = write(tmp_path, quantized_model(rng, bits), float_model(rng))

    (row,) = written.layers
    assert (row.bits, row.details["input_bits"]) == (bits, bits)


@pytest.mark.parametrize("bits", [8, 7, 4])
def test_every_optimization_level_agrees(
    bits: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    write(tmp_path, quantized_model(rng, bits), float_model(rng))
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)

    results = [outputs(tmp_path / "model.qdq.onnx", x, level) for level in LEVELS]

    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-5, atol=1e-5)


def test_the_bias_is_int32_at_the_scale_of_the_products(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    model = quantized_model(rng)
    values = {name: v.const_value for name, v in model.graph.initializers.items()}
    bias, scales, x_scale = (values[k].numpy() for k in ("b", "ws", "xs"))  # type: ignore[union-attr]  # all are constants

    write(tmp_path, model, float_model(rng))

    saved = ir.load(tmp_path / "model.qdq.onnx").graph
    conv = next(node for node in saved if node.op_type == "Conv")
    dequantize = conv.inputs[2].producer()  # type: ignore[union-attr]  # it has three inputs
    assert dequantize is not None
    codes, scale = (value.const_value.numpy() for value in dequantize.inputs[:2])  # type: ignore[union-attr]  # constants
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(scale, x_scale * scales)
    np.testing.assert_allclose(codes * scale, bias, atol=float(scale.max()) / 2 * 1.001)


def test_a_bias_that_int32_cannot_hold_stays_float_and_says_why(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    model = quantized_model(rng)
    model.graph.initializers["b"].const_value = ir.tensor(np.full(8, 1e9, np.float32))
    report = Report()

    ONNX.write(WriteJob(model, float_model(rng), tmp_path, report))

    assert [note.why_not for note in report.notes] == [
        "its bias does not fit into int32 at the scale of its products"
    ]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(7)
        write(folder, quantized_model(rng), float_model(rng))
        contents.append({file.name: file.read_bytes() for file in folder.iterdir()})

    assert contents[0] == contents[1]


def with_function(rng: np.random.Generator) -> ir.Model:
    model = float_model(rng)
    output = model.graph.outputs[0]

    def body(tape: ir.tape.Tape, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        return [tape.op("Neg", [inputs[0]])]

    node = call(model, "Negative", [output], {}, body, name="minus")
    node.outputs[0].name = "z"
    node.outputs[0].type, node.outputs[0].shape = output.type, output.shape
    model.graph.append(node)
    model.graph.outputs[0] = node.outputs[0]
    return model


@pytest.mark.parametrize(("keep", "last"), [(False, "Neg"), (True, "Negative")])
def test_functions_are_expanded_unless_they_are_to_be_kept(
    last: str, tmp_path: Path, rng: np.random.Generator, *, keep: bool
) -> None:
    _, manifest = write(tmp_path, with_function(rng), keep_functions=keep)

    saved = onnx.load(tmp_path / "model.onnx")
    assert saved.graph.node[-1].op_type == last
    assert len(saved.functions) == int(keep)
    x = {"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)}
    assert (ONNX.open(tmp_path, manifest).run(x)["z"] <= 0).all()


def test_writing_leaves_the_models_as_they_were(tmp_path: Path, rng: np.random.Generator) -> None:
    model, plain = quantized_model(rng), float_model(rng)
    before = [ir.to_proto(m).SerializeToString() for m in (model, plain)]

    write(tmp_path, model, plain)

    assert [ir.to_proto(m).SerializeToString() for m in (model, plain)] == before


def test_a_bundle_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="has no model"):
        ONNX.open(tmp_path, Manifest("onnx", "0", {}, [], []))

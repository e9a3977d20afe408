from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from qconvert.passes.adopt_qdq import adopt_qdq
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.order import optimize
from qconvert.passes.planning import plan
from qconvert.passes.read_qdq import has_qdq, without_qdq
from qconvert.plan import OpRule, Scheme
from qconvert.quant import Encodings, symmetric
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from tests.passes.policies import LAYERS
from tests.passes.reading import encodings_of, kinds

if TYPE_CHECKING:
    from pathlib import Path

    from tests.passes.conftest import Build, Run


def test_every_layer_of_a_qat_model_finds_its_grid(
    qat: ir.Model, run: Run, rng: np.random.Generator
) -> None:
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    before = run(qat, {"x": x})["y"]
    report = Report()

    optimize(qat, report)
    adopted = adopt_qdq(qat, LAYERS, report)

    encodings = encodings_of(adopted)
    assert set(encodings.activations) == {"x", "p", "f"}
    assert {codes.shape for codes in encodings.rounded.values()} == {
        (6, 4, 3, 3), (5, 6, 1, 1), (5, 3),
    }  # fmt: skip
    assert kinds(adopted).count("QuantizeLinear") == 3
    # Only the rounding of the output is gone, half a step of 0.05.
    np.testing.assert_allclose(run(adopted, {"x": x})["y"], before, atol=0.0251)
    assert any("network output (1)" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("operator", "commutes"),
    [
        ("Relu (d)", True),
        ("MaxPool <kernel_shape = [2, 2]> (d)", True),
        ("AveragePool <kernel_shape = [2, 2]> (d)", False),
        ("Transpose <perm = [0, 1, 3, 2]> (d)", True),
        ("Clip (d, zero, six)", True),
        ("Clip (d, zero, odd)", False),
        ("Pad (d, pads)", True),
        ("Pad (d, pads, odd)", False),
        ("Concat <axis = 1> (d, d)", True),
        ("Sigmoid (d)", False),
    ],
)
def test_a_grid_passes_exactly_through_what_commutes_with_it(
    operator: str, commutes: bool, graph: Build, run: Run, rng: np.random.Generator
) -> None:
    channels = 8 if operator.startswith("Concat") else 4
    model = graph(
        f"""
        net (float[1, 4, 6, 6] x) => (float[] y) {{
          q = QuantizeLinear (x, s, z)
          d = DequantizeLinear (q, s, z)
          t = {operator}
          wd = DequantizeLinear <axis = 0> (w, sw)
          [conv] y = Conv (t, wd)
        }}
        """,
        s=np.float32(0.25),
        z=np.int8(0),
        w=rng.integers(-127, 128, (3, channels, 1, 1)).astype(np.int8),
        sw=rng.uniform(0.01, 0.02, 3).astype(np.float32),
        zero=np.float32(0),
        six=np.float32(6),
        odd=np.float32(0.3),
        pads=np.asarray([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    )
    x = (20 * rng.normal(size=(1, 4, 6, 6))).astype(np.float32)
    before = run(model, {"x": x})["y"]

    optimize(model, Report())
    adopted = adopt_qdq(model, LAYERS, Report())

    assert has_qdq(adopted) == commutes
    if commutes:
        after = run(adopted, {"x": x})["y"]
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-5)


def test_pairs_stay_at_operators_that_the_policy_knows(
    graph: Build, run: Run, rng: np.random.Generator
) -> None:
    body = """
        net (float[2, 3] x, float[3, 2] w) => (float[2, 2] y) {
          q = QuantizeLinear (x, s, z)
          d = DequantizeLinear (q, s, z)
          e = QuantizeLinear (w, t, z)
          f = DequantizeLinear (e, t, z)
          m = MatMul (d, f)
          r = QuantizeLinear (m, s, z)
          a = DequantizeLinear (r, s, z)
          y = Add (a, a)
        }
    """
    model = graph(body, s=np.float32(0.05), t=np.float32(0.04), z=np.int8(0))
    rows = (OpRule("MatMul", "compute", "channel"), OpRule("Add", "aligned"))
    knowing = replace(LAYERS, rules={row.op_type: row for row in rows})
    forgetful = replace(LAYERS, rules={"MatMul": rows[0]})
    inputs = {
        "x": rng.normal(size=(2, 3)).astype(np.float32),
        "w": rng.normal(size=(3, 2)).astype(np.float32),
    }

    all_kept = adopt_qdq(model, knowing, Report())
    report = Report()
    some_kept = adopt_qdq(model, forgetful, report)

    assert kinds(all_kept) == kinds(model)
    np.testing.assert_array_equal(run(all_kept, inputs)["y"], run(model, inputs)["y"])
    assert kinds(some_kept).count("QuantizeLinear") == 2
    assert [warning[-7:] for warning in report.warnings] == ["Add (2)"]


def test_zero_points_become_symmetric_codes_where_a_target_has_none(
    graph: Build, run: Run, rng: np.random.Generator
) -> None:
    model = graph(
        """
        net (float[1, 4, 6, 6] x) => (float[1, 3, 6, 6] y) {
          q = QuantizeLinear (x, s, z)
          d = DequantizeLinear (q, s, z)
          wd = DequantizeLinear (w, sw, zw)
          [conv] y = Conv (d, wd)
        }
        """,
        s=np.float32(0.02),
        z=np.uint8(100),
        w=rng.integers(1, 256, (3, 4, 1, 1)).astype(np.uint8),
        sw=np.float32(0.01),
        zw=np.uint8(128),
    )
    x = rng.uniform(-2, 3, size=(1, 4, 6, 6)).astype(np.float32)
    before = run(model, {"x": x})["y"]
    report = Report()

    optimize(model, report)
    adopted = adopt_qdq(model, LAYERS, report)

    encodings = encodings_of(adopted)
    assert encodings.activations["x"].symmetric
    np.testing.assert_allclose(encodings.activations["x"].threshold, 155 * 0.02, rtol=1e-6)
    assert encodings.weights["w"].symmetric
    assert any("no zero points" in warning for warning in report.warnings)
    np.testing.assert_allclose(run(adopted, {"x": x})["y"], before, atol=0.1)
    np.testing.assert_array_equal(
        run(without_qdq(adopted), {"x": x})["y"], run(without_qdq(model), {"x": x})["y"]
    )


def test_grouped_weights_with_finer_scales_than_the_target_has_are_rounded_again(
    graph: Build, run: Run, rng: np.random.Generator
) -> None:
    model = graph(
        """
        net (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) {
          q = QuantizeLinear (x, s, z)
          d = DequantizeLinear (q, s, z)
          wd = DequantizeLinear <axis = 0> (w, sw)
          [conv] y = Conv <group = 2> (d, wd)
        }
        """,
        s=np.float32(0.02),
        z=np.int8(0),
        w=rng.integers(-127, 128, (4, 2, 1, 1)).astype(np.int8),
        sw=np.asarray([0.01, 0.02, 0.03, 0.01], np.float32),
    )
    x = rng.uniform(-2, 2, size=(1, 4, 6, 6)).astype(np.float32)
    before = run(model, {"x": x})["y"]
    report = Report()

    adopted = adopt_qdq(model, LAYERS, report)

    scale = encodings_of(adopted).weights["w"].scale
    np.testing.assert_array_equal(scale, np.asarray([0.02, 0.02, 0.03, 0.03], np.float32))
    np.testing.assert_allclose(run(adopted, {"x": x})["y"], before, atol=0.15)
    assert any("rounded again" in warning for warning in report.warnings)


def test_layers_without_a_scale_go_back_to_float_and_say_why(
    graph: Build, run: Run, rng: np.random.Generator
) -> None:
    model = graph(
        """
        net (float[1, 4, 6, 6] x) => (float[1, 3, 6, 6] y) {
          t = Sigmoid (x)
          wd = DequantizeLinear (w, sw)
          [conv] y = Conv (t, wd)
        }
        """,
        w=rng.integers(-127, 128, (3, 4, 1, 1)).astype(np.int8),
        sw=np.float32(0.01),
    )
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    report = Report()

    adopted = adopt_qdq(model, LAYERS, report)

    assert not has_qdq(adopted)
    assert [str(note) for note in report.notes] == [
        "adopt_qdq: 'conv' stays: the model has no scale for its input"
    ]
    np.testing.assert_array_equal(run(adopted, {"x": x})["y"], run(model, {"x": x})["y"])


def test_what_insert_qdq_writes_is_adopted_unchanged(
    graph: Build, run: Run, rng: np.random.Generator
) -> None:
    model = graph(
        """
        net (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) {
          [conv] a = Conv (x, w)
          [relu] r = Relu (a)
          [conv2] c = Conv (r, w)
          [add] y = Add (c, r)
        }
        """,
        w=rng.normal(size=(4, 4, 1, 1)).astype(np.float32),
    )
    chosen = plan(model, LAYERS, Scheme(activation_bits=7), Report())
    encodings = Encodings(
        {name: symmetric(4.0, bits=7) for name in chosen.activations},
        {"w": symmetric(np.ones(4), axis=0)},
    )
    quantized = insert_qdq(model, chosen, encodings)

    adopted = adopt_qdq(quantized, LAYERS, Report())

    assert kinds(adopted) == kinds(quantized)
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    np.testing.assert_array_equal(run(adopted, {"x": x})["y"], run(quantized, {"x": x})["y"])
    assert {params.bits for params in encodings_of(adopted).activations.values()} == {7}


def _open(path: Path) -> ir.Model:
    """A corpus model in the conventions of the intermediate representation."""
    model = ir.from_proto(onnx.version_converter.convert_version(onnx.load(path), 21))
    model.ir_version = 10
    for value in model.graph.inputs:
        assert value.shape is not None
        value.shape = ir.Shape([dim if isinstance(dim, int) else 1 for dim in value.shape])
    common.ShapeInferencePass()(model)
    return model


@pytest.mark.slow
def test_qat_resnet_keeps_its_accuracy_on_a_target_of_layers(corpus: Path) -> None:
    folder = corpus / "models" / "onnx_resnet20_cifar10_qat_qdq"
    model = _open(folder / "resnet20_cifar10_qat_qdq.onnx")
    with np.load(corpus / "images" / "cifar10_test_1000.npz") as data:
        pixels, labels = data["x"], data["y"]
    mean, norm = (123.675, 116.28, 103.53), (0.017125, 0.017507, 0.017429)
    images = ((pixels - mean) * norm).transpose(0, 3, 1, 2).astype(np.float32)

    def top1(candidate: ir.Model) -> float:
        with OnnxRuntime(candidate, threads=1) as runtime:
            name = runtime.inputs[0]
            outputs = [runtime.run({name: image[None]}) for image in images]
        guesses = [next(iter(each.values())).argmax() for each in outputs]
        return float(np.mean(np.asarray(guesses) == labels))

    original = top1(model)
    optimize(model, Report())
    report = Report()
    adopted = adopt_qdq(model, LAYERS, report)

    assert abs(top1(adopted) - original) <= 0.005
    assert len(encodings_of(adopted).weights) == 20
    assert [warning[-8:] for warning in report.warnings] == ["Add (18)"]

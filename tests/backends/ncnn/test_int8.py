"""Integer layers: ncnn against its arithmetic written down in numpy, and onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.backends.ncnn.integers import WINOGRAD_LIMIT
from qconvert.formats.ncnn_lint import lint
from qconvert.formats.ncnn_param import parse
from qconvert.plan import Scheme
from qconvert.quant import symmetric
from tests.backends.graphs import model_of
from tests.backends.ncnn.support import cosine, deploy, quantized, simulate

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.quant import F32

QDQ = """
  {x}_q = QuantizeLinear({x}, {x}_s, zero)
  {x}_d = DequantizeLinear({x}_q, {x}_s, zero)
"""


@dataclass(frozen=True)
class Integer:
    """One quantized convolution and what it computes, by the rules of ncnn's reference code."""

    codes: np.ndarray
    weight_scales: F32
    input_scale: np.float32
    bias: F32
    group: int = 1

    def run(self, x: F32) -> F32:
        """[1, I, H, W] → [1, O, H - k + 1, W - k + 1]."""
        scaled = x[0].astype(np.float64) * np.float32(1 / self.input_scale)
        codes = np.clip(np.copysign(np.floor(np.abs(scaled) + 0.5), scaled), -127, 127)
        outputs, inputs, k, _ = self.codes.shape
        size = outputs // self.group
        h, w = x.shape[2] - k + 1, x.shape[3] - k + 1
        out = np.zeros((1, outputs, h, w), np.float32)
        for o in range(outputs):
            start = o // size * inputs
            for i in range(h):
                for j in range(w):
                    patch = codes[start : start + inputs, i : i + k, j : j + k]
                    acc = np.int64((patch * self.codes[o]).sum())
                    scale = np.float32(self.input_scale * self.weight_scales[o])
                    out[0, o, i, j] = np.float32(acc) * scale + self.bias[o]
        return out


def random_layer(
    rng: np.random.Generator, shape: tuple[int, int, int, int], group: int = 1, *, per_group: bool
) -> Integer:
    codes = rng.integers(-127, 128, size=shape).astype(np.int8)
    scales = rng.uniform(0.001, 0.01, size=shape[0]).astype(np.float32)
    if per_group:
        scales = np.repeat(scales[:group], shape[0] // group)
    bias = rng.normal(size=shape[0]).astype(np.float32)
    return Integer(codes, scales, np.float32(0.02), bias, group)


def graph_of(layer: Integer, channels: int, size: int, tail: str = "") -> ir.Model:
    """x → Q/DQ → Conv → y (or `tail` from c to y)."""
    body = (
        QDQ.format(x="x")
        + "wd = DequantizeLinear<axis = 0>(w, ws, wz) "
        + f"[conv] c = Conv<group = {layer.group}>(x_d, wd, b) "
        + (tail or "y = Identity(c)")
    )
    return model_of(
        f"g (float[1, {channels}, {size}, {size}] x) => (float[] y) {{ {body} }}",
        w=layer.codes,
        ws=layer.weight_scales,
        wz=np.zeros(layer.weight_scales.shape, np.int8),
        b=layer.bias,
        x_s=np.asarray(layer.input_scale),
        zero=np.int8(0).reshape(()),
    )


@dataclass(frozen=True)
class Case:
    id: str
    shape: tuple[int, int, int, int]
    group: int = 1
    per_group: bool = False
    kinds: tuple[str, ...] = ("Convolution",)
    tolerance: float = 1e-5


CASES = [
    Case("pointwise", (16, 8, 1, 1)),
    Case("small_3x3", (8, 4, 3, 3)),
    Case("winograd_3x3", (16, 16, 3, 3)),
    Case("winograd_3x3_beyond_the_bound", (16, 64, 3, 3)),
    Case("five_by_five", (6, 3, 5, 5)),
    # Packed depthwise kernels divide with a 12-bit reciprocal.
    Case("depthwise_packed", (8, 1, 3, 3), 8, kinds=("ConvolutionDepthWise",), tolerance=1e-3),
    Case("depthwise_odd", (7, 1, 3, 3), 7, kinds=("ConvolutionDepthWise",)),
    Case("grouped", (6, 4, 3, 3), 2, per_group=True, kinds=("ConvolutionDepthWise",)),
    Case("grouped_by_eight", (16, 4, 3, 3), 2, per_group=True, kinds=("Slice", "Concat")),
    Case("grouped_by_sixteen", (32, 4, 1, 1), 2, per_group=True, kinds=("Slice", "Concat")),
    Case("grouped_with_scales_of_their_own", (6, 4, 3, 3), 2, kinds=("Slice", "Concat")),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_convolution_computes_on_integers(case: Case, rng: np.random.Generator) -> None:
    layer = random_layer(rng, case.shape, case.group, per_group=case.per_group)
    channels, size = case.shape[1] * case.group, 8
    model = graph_of(layer, channels, size)
    feed = {"x": rng.uniform(-2.6, 2.6, size=(1, channels, size, size)).astype(np.float32)}

    artifact = deploy(model, feed)

    y = artifact.outputs["y"]
    scale = float(np.abs(y).max())
    np.testing.assert_allclose(y, layer.run(feed["x"]), rtol=0, atol=case.tolerance * scale)
    np.testing.assert_allclose(y, simulate(model, feed)["y"], rtol=0, atol=1e-2 * scale)
    assert set(case.kinds) <= set(artifact.kinds)


def test_winograd_is_on_exactly_where_the_bound_proves_it() -> None:
    for inputs, top in ((25, 127), (26, 127), (51, 63), (52, 63)):
        codes = np.full((9, inputs, 3, 3), top, np.int8)
        layer = Integer(codes, np.full(9, 0.01, np.float32), np.float32(0.02), np.zeros(9, "f"))
        x = np.full((1, inputs, 8, 8), 127 * 0.02, np.float32)

        artifact = deploy(graph_of(layer, inputs, 8), {"x": x})

        total = 9 * inputs * top
        row = artifact.rows["conv"]
        assert row.details["sum_abs_weights"] == total
        assert row.details["winograd"] is (total * 127 < WINOGRAD_LIMIT)
        assert ("31=64" in artifact.line("conv")) is not row.details["winograd"]
        np.testing.assert_allclose(artifact.outputs["y"], layer.run(x), rtol=1e-5)


def test_a_channel_of_zeros_gives_its_bias(rng: np.random.Generator) -> None:
    layer = random_layer(rng, (5, 3, 3, 3), per_group=False)
    layer.codes[2] = 0
    feed = {"x": rng.normal(size=(1, 3, 6, 6)).astype(np.float32)}

    artifact = deploy(graph_of(layer, 3, 6), feed)

    np.testing.assert_array_equal(artifact.outputs["y"][0, 2], layer.bias[2])


CHAIN = """
g (float[1, 8, 10, 10] x) => (float[] y, float[] z) {
  [conv1] c1 = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
  r1 = Relu(c1)
  [conv2] c2 = Conv(r1, w2)
  [conv3] c3 = Conv<pads = [1, 1, 1, 1]>(r1, w1)
  r2 = Relu(c2)
  [conv4] y = Conv(r2, w2)
  p = MaxPool<kernel_shape = [2, 2]>(c3)
  [conv5] z = Conv(p, w2)
}
"""


def chain(rng: np.random.Generator) -> ir.Model:
    w1, w2 = rng.normal(size=(8, 8, 3, 3)), rng.normal(size=(8, 8, 1, 1))
    return model_of(
        CHAIN,
        w1=w1.astype(np.float32),
        w2=w2.astype(np.float32),
        b1=rng.normal(size=8).astype(np.float32),
    )


def test_convolutions_hand_on_int8_where_every_reader_takes_it(rng: np.random.Generator) -> None:
    model = chain(rng)
    feeds = [{"x": rng.normal(size=(1, 8, 10, 10)).astype(np.float32)} for _ in range(3)]
    simulation = quantized(model, feeds)

    artifact = deploy(simulation, feeds[0], float_model=model)

    terms = {name: artifact.line(name).split(" 8=")[1].split()[0] for name in artifact.rows
             if name.startswith("conv")}  # fmt: skip
    assert terms == {"conv1": "102", "conv2": "102", "conv3": "2", "conv4": "2", "conv5": "2"}
    for name, expected in simulate(simulation, feeds[0]).items():
        assert cosine(artifact.outputs[name], expected) > 0.99999


def test_a_grouped_convolution_may_requantize_where_it_may_not_dequantize(
    rng: np.random.Generator,
) -> None:
    """With 8 outputs per group stock ncnn gives garbage, unless the layer hands on int8."""
    model = model_of(
        """g (float[1, 8, 8, 8] x) => (float[] y) {
          [grouped] c = Conv<group = 2>(x, w)
          r = Relu(c)
          [conv] y = Conv(r, v)
        }""",
        w=rng.normal(size=(16, 4, 3, 3)).astype(np.float32),
        v=rng.normal(size=(5, 16, 1, 1)).astype(np.float32),
    )
    feed = {"x": rng.normal(size=(1, 8, 8, 8)).astype(np.float32)}
    simulation = quantized(model, [feed])

    artifact = deploy(simulation, feed, float_model=model)

    assert artifact.kinds == ["Input", "ConvolutionDepthWise", "Convolution"]
    assert " 8=101 " in artifact.line("grouped")
    assert cosine(artifact.outputs["y"], simulate(simulation, feed)["y"]) > 0.9999


@pytest.mark.parametrize("bits", [4, 6, 7])
def test_narrow_activations_saturate_where_the_simulation_does(
    bits: int, rng: np.random.Generator
) -> None:
    model = chain(rng)
    feeds = [{"x": rng.normal(size=(1, 8, 10, 10)).astype(np.float32)} for _ in range(2)]
    simulation = quantized(model, feeds, Scheme(weight_bits=bits, activation_bits=bits))
    loud = {"x": feeds[0]["x"] * np.float32(3.0)}

    artifact = deploy(simulation, loud, float_model=model)
    relaxed = deploy(simulation, loud, float_model=model, options={"relaxed_range": True})

    for name, expected in simulate(simulation, loud).items():
        assert cosine(artifact.outputs[name], expected) > 0.99999
        assert cosine(relaxed.outputs[name], expected) < 0.999
    assert artifact.rows["conv1"].bits == bits
    assert artifact.kinds.count("Clip") == 1  # the network input has no activation to fold into
    assert "9=3 -23310=2,0.0," in artifact.line("conv1")
    assert artifact.rows["conv4"].details["clip"] == "folded into the layers before"
    assert "Clip" not in relaxed.kinds


def test_a_quantized_bundle_holds_its_float_model_and_table(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    model = chain(rng)
    feed = {"x": rng.normal(size=(1, 8, 10, 10)).astype(np.float32)}
    simulation = quantized(model, [feed])

    deploy(simulation, feed, float_model=model, folder=tmp_path)
    as_float = deploy(model, feed)

    table = (tmp_path / "model.table").read_text()
    float_param = (tmp_path / "float.param").read_text()
    assert float_param == as_float.texts["model.param"]
    assert [line.split()[0] for line in table.splitlines()] == [
        *(f"conv{n}_param_0" for n in range(1, 6)),
        *(f"conv{n}" for n in range(1, 6)),
    ]
    assert lint(table, parse(float_param)) == []


def test_inner_products_compute_on_integers(rng: np.random.Generator) -> None:
    weights = rng.normal(size=(5, 24)).astype(np.float32)
    model = model_of(
        """g (float[1, 24] x) => (float[] y, float[] z) {
          [fc] y = Gemm<transB = 1>(x, w, b)
          r = Relu(x)
          [product] z = MatMul(r, v)
        }""",
        w=weights,
        v=np.ascontiguousarray(weights.T),
        b=rng.normal(size=5).astype(np.float32),
    )
    feed = {"x": rng.normal(size=(1, 24)).astype(np.float32)}
    simulation = quantized(model, [feed])

    artifact = deploy(simulation, feed, float_model=model)

    assert {row.name: row.bits for row in artifact.written.layers if row.bits < 32} == {
        "fc": 8,
        "product": 8,
    }
    for name, expected in simulate(simulation, feed).items():
        np.testing.assert_allclose(artifact.outputs[name], expected, rtol=1e-4, atol=1e-5)


def test_a_zero_point_is_computed_in_float_and_reported(rng: np.random.Generator) -> None:
    weights = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    scales = symmetric(np.abs(weights).max(axis=(1, 2, 3)), axis=0).scale
    codes = np.rint(weights / scales.reshape(-1, 1, 1, 1)).astype(np.int8)
    model = model_of(
        """g (float[1, 3, 8, 8] x) => (float[] y) {
          q = QuantizeLinear(x, s, zero)
          d = DequantizeLinear(q, s, zero)
          wd = DequantizeLinear<axis = 0>(w, ws)
          [conv] y = Conv(d, wd)
        }""",
        w=codes,
        ws=scales,
        s=np.float32(0.02).reshape(()),
        zero=np.uint8(100).reshape(()),
    )
    feed = {"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)}

    artifact = deploy(model, feed)

    assert artifact.rows["conv"].bits == 32
    assert "zero point 100" in artifact.rows["conv"].details["float"]
    np.testing.assert_allclose(artifact.outputs["y"], simulate(model, feed)["y"], 1e-4, 1e-4)


def test_a_fake_quantized_sum_stays_on_the_grid(rng: np.random.Generator) -> None:
    model = model_of(
        "g (float[1, 3, 8, 8] x) => (float[] y) {"
        + QDQ.format(x="x")
        + "n = Neg(x_d) r = Exp(n) y = Add(x_d, r) }",
        x_s=np.float32(0.02).reshape(()),
        zero=np.int8(0).reshape(()),
    )
    feed = {"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)}

    artifact = deploy(model, feed)

    np.testing.assert_allclose(artifact.outputs["y"], simulate(model, feed)["y"], 1e-5, 1e-5)

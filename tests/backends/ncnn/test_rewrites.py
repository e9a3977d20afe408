"""Rewrites of layers: the layers that should be there are, and the result stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.backends.ncnn.backend import BACKEND
from qconvert.bundle import Manifest
from qconvert.plan import Scheme
from tests.backends.graphs import model_of
from tests.backends.ncnn.support import cosine, deploy, quantized, simulate

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir


@dataclass(frozen=True)
class Case:
    """A pattern, and every layer of its artifact."""

    id: str
    body: str
    kinds: str


CASES = [
    Case("swish", "s = Sigmoid(x) y = Mul(x, s)", "Input Split Swish"),
    Case("hard_swish", "s = HardSigmoid<alpha = 0.1666667, beta = 0.5>(x) y = Mul(s, x)",
         "Input HardSwish"),
    Case("mish", "p = Softplus(x) t = Tanh(p) y = Mul(x, t)", "Input Mish"),
    Case("padding", "p = Pad(x, pads) y = Conv<pads = [1, 0, 0, 1]>(p, w)", "Input Convolution"),
    Case("relu", "c = Conv(x, w) y = Relu(c)", "Input Convolution"),
    Case("relu6", "c = Conv(x, w) y = Clip(c, zero, six)", "Input Convolution"),
    Case("leaky", "c = Conv(x, w) y = LeakyRelu(c)", "Input Convolution"),
    Case("sigmoid", "c = Conv(x, w) y = Sigmoid(c)", "Input Convolution"),
    Case("conv_mish", "c = Conv(x, w) y = Mish(c)", "Input Convolution"),
    Case("conv_hardswish", "c = Conv(x, w) y = HardSwish(c)", "Input Convolution"),
    Case("two_readers_keep_the_activation", "c = Conv(x, w) r = Relu(c) y = Add(c, r)",
         "Input Convolution Split ReLU BinaryOp"),
    Case("classifier", "g = GlobalAveragePool(x) f = Flatten(g) y = Gemm(f, m)",
         "Input Pooling InnerProduct"),
    Case("squeeze_and_excite",
         "g = GlobalAveragePool(x) a = Conv(g, w1) r = Relu(a) b = Conv(r, w1) "
         "s = HardSigmoid(b) y = Mul(x, s)",
         "Input Split Pooling InnerProduct InnerProduct HardSigmoid BinaryOp"),
    Case("shuffle",
         "r = Reshape(x, grouped) t = Transpose<perm = [0, 2, 1, 3, 4]>(r) y = Reshape(t, whole)",
         "Input ShuffleChannel"),
    Case("shuffle_and_halves",
         "r = Reshape(x, grouped) t = Transpose<perm = [0, 2, 1, 3, 4]>(r) f = Reshape(t, whole) "
         "a = Slice(f, i0, i2, i1) b = Slice(f, i2, i4, i1) y = Sub(a, b)",
         "Input ShuffleChannel Slice BinaryOp"),
    Case("reshapes_meet", "a = Reshape(x, grouped) b = Reshape(a, flat) y = Reshape(b, whole)",
         "Input Noop"),
    Case("dead_layers_go", "d = Exp(x) e = Neg(d) y = Abs(x)", "Input UnaryOp"),
]  # fmt: skip

INTS = {"pads": [0, 0, 1, 0, 0, 0, 2, 1], "grouped": [1, 2, 2, 6, 6], "whole": [1, 4, 6, 6],
        "flat": [1, 144], "i0": [0], "i1": [1], "i2": [2], "i4": [4]}  # fmt: skip


def build(body: str, rng: np.random.Generator) -> ir.Model:
    constants: dict[str, np.ndarray] = {name: np.array(v, np.int64) for name, v in INTS.items()}
    for name, shape in {"w": (5, 4, 3, 3), "w1": (4, 4, 1, 1), "m": (4, 3)}.items():
        constants[name] = rng.normal(size=shape).astype(np.float32)
    constants |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    used = {name: array for name, array in constants.items() if name in words}
    return model_of(f"g (float[1, 4, 6, 6] x) => (float[] y) {{ {body} }}", **used)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_pattern_becomes_the_layers_ncnn_has_for_it(case: Case, rng: np.random.Generator) -> None:
    model = build(case.body, rng)
    feed = {"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)}

    artifact = deploy(model, feed)

    np.testing.assert_allclose(artifact.outputs["y"], simulate(model, feed)["y"], 1e-4, 1e-5)
    assert [k for k in artifact.kinds if k != "Split"] == [
        kind for kind in case.kinds.split() if kind != "Split"
    ]


@pytest.mark.parametrize("bits", [8, 7])
def test_squeeze_and_excite_runs_on_integers(bits: int, rng: np.random.Generator) -> None:
    body = next(case.body for case in CASES if case.id == "squeeze_and_excite")
    model = build(body, rng)
    feeds = [{"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)} for _ in range(3)]
    scheme = Scheme(weight_bits=bits, activation_bits=bits)
    simulation = quantized(model, feeds, scheme)

    artifact = deploy(simulation, feeds[0], float_model=model)

    assert artifact.kinds.count("InnerProduct") == 2
    assert sum(row.bits < 32 for row in artifact.written.layers) == 2
    assert cosine(artifact.outputs["y"], simulate(simulation, feeds[0])["y"]) > 0.99999


def test_rows_of_a_matrix_run_on_integers(rng: np.random.Generator) -> None:
    model = model_of(
        "g (float[1, 5, 6] x) => (float[] y) { r = Relu(x) [product] y = MatMul(r, w) }",
        w=rng.normal(size=(6, 9)).astype(np.float32),
    )
    feed = {"x": rng.normal(size=(1, 5, 6)).astype(np.float32)}
    simulation = quantized(model, [feed])

    artifact = deploy(simulation, feed, float_model=model)

    assert artifact.rows["product"].bits == 8
    assert cosine(artifact.outputs["y"], simulate(simulation, feed)["y"]) > 0.99999


def test_a_bundle_opens_with_both_its_models(rng: np.random.Generator, tmp_path: Path) -> None:
    model = build("[conv] c = Conv(x, w) y = Relu(c)", rng)
    feed = {"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)}
    simulation = quantized(model, [feed])
    artifact = deploy(simulation, feed, float_model=model, folder=tmp_path)
    manifest = Manifest(
        target="ncnn",
        qconvert="0",
        source={},
        inputs=[{"name": "x", "shape": [1, 4, 6, 6]}],
        outputs=[{"name": "y", "shape": [1, 5, 4, 4]}],
        layers=list(artifact.written.layers),
        blobs=dict(artifact.written.blobs),
    )

    found = []
    for start in (BACKEND.open, BACKEND.open_float):
        runtime = start(tmp_path, manifest)
        found.append(runtime.run(feed)["y"])
        runtime.close()

    np.testing.assert_allclose(found[0], artifact.outputs["y"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], simulate(model, feed)["y"], rtol=1e-4, atol=1e-5)


def test_the_same_model_gives_the_same_bytes(rng: np.random.Generator, tmp_path: Path) -> None:
    model = build("[conv] c = Conv(x, w) y = Relu(c)", rng)
    feed = {"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)}
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        deploy(quantized(model, [feed]), feed, float_model=model, folder=folder)

    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes(), path.name

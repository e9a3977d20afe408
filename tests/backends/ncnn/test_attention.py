"""Attention written in primitive operators becomes one layer, and computes what it did."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest

from qconvert.passes.order import optimize
from qconvert.report import Report
from tests.backends.graphs import model_of
from tests.backends.ncnn.support import deploy, quantized, simulate

HEADS = """
  q0 = MatMul(x, wq) q1 = Add(bq, q0) q2 = Reshape(q1, sx) q = Transpose<perm = [0, 2, 1, 3]>(q2)
  k0 = MatMul({z}, wk) k1 = Add(bk, k0) k2 = Reshape(k1, {s}) k = Transpose<perm = [0, 2, 3, 1]>(k2)
  v0 = MatMul({z}, wv) v1 = Add(v0, bv) v2 = Reshape(v1, {s}) v = Transpose<perm = [0, 2, 1, 3]>(v2)
"""
BACK = """
  o0 = MatMul(p, v) o1 = Transpose<perm = [0, 2, 1, 3]>(o0) o2 = Reshape(o1, s3)
  o3 = MatMul(o2, wo) y = Add(o3, bo)
"""
SELF = HEADS.format(z="x", s="sx") + "p0 = MatMul(q, k) {scores}" + BACK
PACKED = """
  a0 = MatMul(x, w3) a1 = Add(a0, b3) a2 = Reshape(a1, s5)
  a = Transpose<perm = [2, 0, 3, 1, 4]>(a2)
  q0 = Gather<axis = 0>(a, i0) k0 = Gather<axis = 0>(a, i1) v = Gather<axis = 0>(a, i2)
  q = Mul(q0, root) k1 = Transpose<perm = [0, 1, 3, 2]>(k0) k = Mul(k1, root)
  p0 = MatMul(q, k) p = Softmax<axis = -1>(p0)
"""
SPLIT = """
  a0 = MatMul(x, w3) a1 = Add(a0, b3) c0, c1, c2 = Split<axis = 2, num_outputs = 3>(a1)
  q0 = Reshape(c0, sx) q1 = Transpose<perm = [0, 2, 1, 3]>(q0) q = Mul(q1, half)
  k0 = Reshape(c1, sx) k = Transpose<perm = [0, 2, 3, 1]>(k0)
  v0 = Reshape(c2, sx) v = Transpose<perm = [0, 2, 1, 3]>(v0)
  p0 = MatMul(q, k) p = Softmax<axis = -1>(p0)
"""
ONE_HEAD = """
  q0 = MatMul(x, wq) q = Add(q0, bq)
  k0 = MatMul(x, wk) k1 = Add(k0, bk) k = Transpose<perm = [0, 2, 1]>(k1)
  v0 = MatMul(x, wv) v = Add(v0, bv)
  p0 = MatMul(q, k) p1 = Div(p0, four) p = Softmax<axis = -1>(p1)
  o2 = MatMul(p, v) o3 = MatMul(o2, wo) y = Add(o3, bo)
"""
PLAIN = "p1 = Div(p0, two) p = Softmax<axis = -1>(p1)"
MHA = "Input MultiHeadAttention"


@dataclass(frozen=True)
class Case:
    id: str
    body: str
    kinds: str = MHA
    inputs: str = "float[1, 6, 16] x"
    outputs: str = "float[] y"


CASES = [
    Case("three_projections", SELF.format(scores=PLAIN)),
    Case("one_projection", PACKED + BACK),
    Case("one_projection_split", SPLIT + BACK),
    Case("one_head", ONE_HEAD),
    Case("a_factor", SELF.format(scores="p1 = Mul(p0, half) p = Softmax<axis = -1>(p1)")),
    Case("no_scale", SELF.format(scores="p = Softmax<axis = -1>(p0)")),
    Case("followed_by_relu", SELF.format(scores=PLAIN).replace("y = Add(o3, bo)",
         "o4 = Add(o3, bo) y = Relu(o4)"), f"{MHA} ReLU"),
    Case("residual", SELF.format(scores=PLAIN).replace("y = Add(o3, bo)",
         "o4 = Add(o3, bo) y = Add(o4, x)"), "Input Split MultiHeadAttention BinaryOp"),
    Case("masked", SELF.format(
        scores="p1 = Div(p0, two) p2 = Add(p1, mask) p = Softmax<axis = -1>(p2)"),
        "Input MemoryData Reshape MultiHeadAttention"),
    Case("of_another_sequence", HEADS.format(z="z", s="sz") + "p0 = MatMul(q, k) " + PLAIN + BACK,
         "Input Input MultiHeadAttention", "float[1, 6, 16] x, float[1, 9, 12] z"),
    Case("in_twos", PACKED + BACK.replace("y = Add(o3, bo)", "x2 = Add(o3, bo)")
         + re.sub(r"\b([aqkvpo]\d?)\b", r"\1_", (PACKED + BACK).replace("x,", "x2,")),
         f"{MHA} MultiHeadAttention"),
    Case("scores_are_an_output", SELF.format(scores=PLAIN), outputs="float[] y, float[] p",
         kinds=""),
    Case("an_activation_inside", SELF.format(scores=PLAIN).replace("q2 = Reshape(q1, sx)",
         "qr = Relu(q1) q2 = Reshape(qr, sx)"), kinds=""),
    Case("softmax_over_queries", SELF.format(scores="p1 = Div(p0, two) p = Softmax<axis = 2>(p1)"),
         kinds=""),
]  # fmt: skip


def constants(rng: np.random.Generator) -> dict[str, np.ndarray | np.generic]:
    def weight(*shape: int) -> np.ndarray:
        return rng.normal(scale=0.4, size=shape).astype(np.float32)

    return {
        **{name: weight(16, 16) for name in ("wq", "wo")},
        **{name: weight(16) for name in ("bq", "bk", "bv", "bo")},
        "w3": weight(16, 48), "b3": weight(48), "mask": weight(6, 6),
        "sx": np.array([1, 6, 4, 4]), "sz": np.array([1, 9, 4, 4]), "s3": np.array([1, 6, 16]),
        "s5": np.array([1, 6, 3, 4, 4]), "half": np.float32(0.5), "two": np.float32(2),
        "four": np.float32(4), "root": np.float32(0.5**0.5),
        "i0": np.int64(0), "i1": np.int64(1), "i2": np.int64(2),
    }  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_attention_is_one_layer_and_computes_what_it_did(
    case: Case, rng: np.random.Generator
) -> None:
    known = constants(rng)
    width = 12 if " z" in case.inputs else 16
    known |= {n: rng.normal(scale=0.4, size=(width, 16)).astype(np.float32) for n in ("wk", "wv")}
    used = set(re.findall(r"\w+", case.body))
    model = model_of(
        f"g ({case.inputs}) => ({case.outputs}) {{ {case.body} }}",
        **{name: array for name, array in known.items() if name in used},
    )
    feed = {"x": rng.normal(size=(1, 6, 16)).astype(np.float32)}
    if width == 12:
        feed["z"] = rng.normal(size=(1, 9, 12)).astype(np.float32)
    source = model.clone()
    optimize(model, Report())

    artifact = deploy(model, feed)

    for name, expected in simulate(source, feed).items():
        np.testing.assert_allclose(artifact.outputs[name], expected, rtol=1e-4, atol=1e-5)
    if case.kinds:
        assert artifact.kinds == case.kinds.split()
    else:
        assert "MultiHeadAttention" not in artifact.kinds


def test_projections_on_integers_stay_layers_of_their_own(rng: np.random.Generator) -> None:
    known = constants(rng)
    used = set(re.findall(r"\w+", PACKED + BACK))
    model = model_of(
        f"g (float[1, 6, 16] x) => (float[] y) {{ {PACKED + BACK} }}",
        **{name: array for name, array in known.items() if name in used},
    )
    optimize(model, Report())
    feed = {"x": rng.normal(size=(1, 6, 16)).astype(np.float32)}
    simulation = quantized(model, [feed])

    artifact = deploy(simulation, feed, float_model=model)

    assert "MultiHeadAttention" not in artifact.kinds
    assert "MultiHeadAttention" not in artifact.texts["float.param"]
    expected = simulate(simulation, feed)["y"]
    np.testing.assert_allclose(artifact.outputs["y"], expected, rtol=1e-3, atol=1e-4)
    assert len(artifact.texts["model.table"].splitlines()) == 4

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.graph import constant
from qconvert.passes.equalize import Equalize, watched
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs

if TYPE_CHECKING:
    import onnx_ir as ir

    from tests.passes.conftest import Build, Run


@dataclass(frozen=True)
class Case:
    """A network from x [1, 4, 6, 6] to y whose inner activations can be evened out."""

    id: str
    body: str
    shapes: dict[str, tuple[int, ...]]
    watched: tuple[str, ...]
    y: str = "float[N, M, K, L] y"


PAIR = {"w": (6, 4, 3, 3), "b": (6,), "v": (5, 6, 1, 1)}
CASES = [
    Case("relu", "[c] a = Conv(x, w, b) r = Relu(a) [d] y = Conv(r, v)", PAIR, ("r",)),
    Case(
        "leaky_relu_and_max_pool",
        "[c] a = Conv(x, w, b) r = LeakyRelu<alpha = 0.2>(a) p = MaxPool<kernel_shape = [2, 2]>(r)"
        "[d] y = Conv(p, v)",
        PAIR,
        ("p",),
    ),
    Case(
        "prelu",
        "[c] a = Conv(x, w, b) r = PRelu(a, s) [d] y = Conv(r, v)",
        {**PAIR, "s": (6, 1, 1)},
        ("r",),
    ),
    Case(
        "depthwise_chain",
        "[c] a = Conv(x, w, b) r = Relu(a) [k] h = Conv<group = 6>(r, k) i = Relu(h)"
        "[d] y = Conv(i, v)",
        {**PAIR, "k": (6, 1, 2, 2)},
        ("r", "i"),
    ),
    Case(
        "grouped",
        "[c] a = Conv(x, w, b) r = Relu(a) [k] h = Conv<group = 2>(r, k, j) i = Relu(h)"
        "[d] y = Conv(i, v)",
        {**PAIR, "k": (6, 3, 1, 1), "j": (6,)},
        ("r", "i"),
    ),
    Case(
        "deconvolution_in_groups",
        "[c] a = Conv(x, w, b) r = Relu(a) [k] h = ConvTranspose<group = 2>(r, k, j) i = Relu(h)"
        "[d] y = Conv(i, v)",
        {**PAIR, "k": (6, 3, 2, 2), "j": (6,)},
        ("r", "i"),
    ),
    Case(
        "concat_of_two",
        "[c] a = Conv(x, w, b) r = Relu(a) [k] h = Conv(x, k) i = Relu(h)"
        "j = Concat<axis = 1>(r, i) [d] y = Conv(j, v)",
        {**PAIR, "k": (3, 4, 3, 3), "v": (5, 9, 1, 1)},
        ("j",),
    ),
    Case(
        "residual",
        "[c] a = Conv(x, w, b) r = Relu(a) [k] h = Conv(r, k) s = Add(h, r) t = Relu(s)"
        "[d] y = Conv(t, v)",
        {**PAIR, "k": (6, 6, 1, 1)},
        ("r", "t"),
    ),
    Case(
        "gemm_after_flatten",
        "[c] a = Conv(x, w, b) r = Relu(a) f = Flatten(r) [k] h = Gemm<transB = 1>(f, k, j)"
        "i = Relu(h) [d] y = Gemm(i, u)",
        {**PAIR, "k": (7, 96), "j": (7,), "u": (7, 3)},
        ("f", "i"),
        y="float[N, M] y",
    ),
]


def _build(case: Case, graph: Build, rng: np.random.Generator) -> ir.Model:
    weights = {}
    for name, shape in case.shapes.items():
        loud = np.exp(rng.normal(0, 2, (shape[0],) + (1,) * (len(shape) - 1)))
        weights[name] = (rng.normal(size=shape) * loud).astype(np.float32)
    return graph(f"g (float[1, 4, 6, 6] x) => ({case.y}) {{{case.body}}}", **weights)


def _ranges(model: ir.Model, names: tuple[str, ...], x: np.ndarray) -> dict[str, np.ndarray]:
    with OnnxRuntime(with_outputs(model, names), threads=1) as runtime:
        values = runtime.run({"x": x})
    return {
        name: np.abs(value).reshape(value.shape[1], -1).max(axis=1)
        for name, value in values.items()
    }


@pytest.mark.parametrize("measured", [True, False], ids=["measured", "by_weights"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_network_computes_what_it_did(
    case: Case, measured: bool, graph: Build, run: Run, rng: np.random.Generator
) -> None:
    model = _build(case, graph, rng)
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    before = run(model, {"x": x})["y"]
    assert watched(model) == case.watched
    ranges = _ranges(model, case.watched, x) if measured else None

    result = Equalize(Report(), ranges)(model)

    assert result.modified
    np.testing.assert_allclose(
        run(model, {"x": x})["y"], before, rtol=2e-4, atol=2e-5 * float(np.abs(before).max())
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_channels_come_closer_together(case: Case, graph: Build, rng: np.random.Generator) -> None:
    model = _build(case, graph, rng)
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    before = _ranges(model, case.watched, x)

    Equalize(Report(), before, strength=0.5)(model)

    after = _ranges(model, case.watched, x)
    for name in case.watched:
        alive = before[name] > 0
        spread = [np.log(side[name][alive]).std() for side in (before, after)]
        assert spread[1] < spread[0] + 1e-5


STAYING = [
    Case("relu6", "[c] a = Conv(x, w) r = Clip(a, l, h) [d] y = Conv(r, v)", PAIR, ()),
    Case("sigmoid", "[c] a = Conv(x, w) r = Sigmoid(a) [d] y = Conv(r, v)", PAIR, ()),
    Case("user_sees_it", "[c] y = Conv(x, w) r = Relu(y) [d] z = Conv(r, v)", PAIR, ()),
    Case("softmax_reads_it", "[c] a = Conv(x, w) y = Softmax(a) [d] z = Conv(a, v)", PAIR, ()),
]


@pytest.mark.parametrize("case", STAYING, ids=lambda case: case.id)
def test_channels_that_cannot_move_stay(case: Case, graph: Build, rng: np.random.Generator) -> None:
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in PAIR.items()}
    weights |= {"l": np.asarray(0, np.float32), "h": np.asarray(6, np.float32)}
    used = {name: array for name, array in weights.items() if name in case.body.replace("(", " ")}
    model = graph(f"g (float[1, 4, 6, 6] x) => (float[N, M, K, L] y) {{{case.body}}}", **used)
    held = {name: constant(value) for name, value in model.graph.initializers.items()}

    result = Equalize(Report())(model)

    assert not result.modified
    assert watched(model) == ()
    for name, value in model.graph.initializers.items():
        np.testing.assert_array_equal(constant(value), held[name])

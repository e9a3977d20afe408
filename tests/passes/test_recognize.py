from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.passes.order import optimize
from qconvert.report import Report

if TYPE_CHECKING:
    import onnx_ir as ir

    from tests.passes.conftest import Build, Run

NUMBERS = {
    "one": 1.0, "two": 2.0, "three": 3.0, "six": 6.0, "zero": 0.0, "half": 0.5, "sixth": 1 / 6,
    "root2": 2**0.5, "rsqrt2": 0.5**0.5, "cubic": 0.044715, "rootpi": (2 / np.pi) ** 0.5,
    "eps": 1e-5, "seven": 7.0,
}  # fmt: skip

CLIPPED = "a = Add(x, three) c = Clip(a, zero, six)"


@dataclass(frozen=True)
class Case:
    """A written-out function of x, and the operators that are left."""

    id: str
    body: str
    left: list[str]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    x: str = "float[1, 3, 4, 8] x"


ERF = "d = Div(x, root2) e = Erf(d) p = Add(e, one)"

CASES = [
    Case("hard_sigmoid_div", f"{CLIPPED} y = Div(c, six)", ["HardSigmoid"]),
    Case("hard_sigmoid_mul", f"{CLIPPED} y = Mul(sixth, c)", ["HardSigmoid"]),
    Case("hard_swish_inner", f"{CLIPPED} d = Div(c, six) y = Mul(x, d)", ["HardSwish"]),
    Case("hard_swish_outer", f"{CLIPPED} d = Mul(c, x) y = Div(d, six)", ["HardSwish"]),
    Case(
        "hard_swish_of_hard_sigmoid",
        "h = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) y = Mul(h, x)",
        ["HardSwish"],
    ),
    Case("gate_of_another_value", f"{CLIPPED} d = Div(c, six) s = Relu(x) y = Mul(s, d)",
         ["HardSigmoid", "Relu", "Mul"]),
    Case("softplus", "e = Exp(x) a = Add(one, e) y = Log(a)", ["Softplus"]),
    Case("mish", "s = Softplus(x) t = Tanh(s) y = Mul(x, t)", ["Mish"]),
    Case("mish_written_out", "e = Exp(x) a = Add(e, one) s = Log(a) t = Tanh(s) y = Mul(t, x)",
         ["Mish"]),
    Case("gelu_torch", f"{ERF} m = Mul(x, p) y = Mul(m, half)", ["Gelu"]),
    Case("gelu_half_first", f"{ERF} h = Mul(half, x) y = Mul(h, p)", ["Gelu"]),
    Case("gelu_half_inside", f"{ERF} h = Mul(p, half) y = Mul(x, h)", ["Gelu"]),
    Case(
        "gelu_tanh",
        "c = Pow(x, three) k = Mul(cubic, c) i = Add(x, k) r = Mul(rootpi, i) t = Tanh(r)"
        " p = Add(t, one) h = Mul(x, half) y = Mul(h, p)",
        ["Gelu"],
    ),
    Case("swish_stays", "s = Sigmoid(x) y = Mul(x, s)", ["Sigmoid", "Mul"]),
    Case("not_six", "a = Add(x, three) c = Clip(a, zero, seven) y = Div(c, six)",
         ["Add", "Clip", "Div"]),
    Case(
        "layer_norm",
        "m = ReduceMean(x, last) d = Sub(x, m) q = Pow(d, two) v = ReduceMean(q, last)"
        " e = Add(v, eps) r = Sqrt(e) n = Div(d, r) s = Mul(n, g) y = Add(b, s)",
        ["LayerNormalization"],
        {"g": (8,), "b": (8,)},
    ),
    Case(
        "layer_norm_plain",
        "m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)"
        " e = Add(eps, v) r = Sqrt(e) y = Div(d, r)",
        ["LayerNormalization"],
    ),
    Case(
        "layer_norm_over_two_axes",
        "m = ReduceMean(x, both) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, both)"
        " e = Add(eps, v) r = Sqrt(e) n = Div(d, r) y = Mul(n, g)",
        ["LayerNormalization"],
        {"g": (4, 8)},
    ),
    Case(
        "norm_over_channels_stays",
        "m = ReduceMean(x, first) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, first)"
        " e = Add(eps, v) r = Sqrt(e) y = Div(d, r)",
        ["ReduceMean", "Sub", "Mul", "ReduceMean", "Add", "Sqrt", "Div"],
    ),
    Case(
        "pad_into_conv",
        "p = Pad(x, amounts) y = Conv<pads = [1, 0, 0, 1]>(p, w)",
        ["Conv"],
        {"w": (2, 3, 3, 3)},
    ),
    Case("pad_of_channels_stays", "p = Pad(x, deep) y = Conv(p, w)", ["Pad", "Conv"],
         {"w": (2, 4, 3, 3)}),
    Case("pad_with_ones_stays", "p = Pad(x, amounts, one) y = Conv(p, w)", ["Pad", "Conv"],
         {"w": (2, 3, 3, 3)}),
    Case("pointwise_pair", "a = Conv(x, w, e) y = Conv(a, v, g)", ["Conv"],
         {"w": (4, 3, 1, 1), "e": (4,), "v": (2, 4, 1, 1), "g": (2,)}),
    Case("pointwise_bottleneck_stays", "a = Conv(x, w) y = Conv(a, v)", ["Conv", "Conv"],
         {"w": (1, 3, 1, 1), "v": (8, 1, 1, 1)}),
    Case("pointwise_with_padding_stays", "a = Conv(x, w, e) y = Conv<pads = [1, 1, 1, 1]>(a, v)",
         ["Conv", "Conv"], {"w": (4, 3, 1, 1), "e": (4,), "v": (2, 4, 1, 1)}),
    Case("repeated", "a = Relu(x) b = Relu(x) y = Add(a, b)", ["Relu", "Add"]),
]  # fmt: skip

AXES = {
    "last": [-1], "both": [2, 3], "first": [1], "amounts": [0, 0, 1, 2, 0, 0, 0, 1],
    "deep": [0, 1, 0, 0, 0, 0, 0, 0],
}  # fmt: skip


def constants(rng: np.random.Generator, case: Case) -> dict[str, np.ndarray | np.generic]:
    """Everything a body may name."""
    drawn = {name: rng.normal(size=shape) for name, shape in case.shapes.items()}
    return {
        **{name: np.float32(number) for name, number in NUMBERS.items()},
        **{name: np.asarray(axes, np.int64) for name, axes in AXES.items()},
        **{name: np.asarray(array, np.float32) for name, array in drawn.items()},
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_written_out_functions_are_recognized_and_compute_the_same(
    case: Case, graph: Build, run: Run, rng: np.random.Generator
) -> None:
    model = graph(f"net ({case.x}) => (float[] y) {{ {case.body} }}", **constants(rng, case))
    x = (4 * rng.normal(size=(1, 3, 4, 8))).astype(np.float32)
    before = run(model, {"x": x})["y"]

    optimize(model, Report())

    assert [node.op_type for node in model.graph] == case.left
    np.testing.assert_allclose(run(model, {"x": x})["y"], before, rtol=1e-4, atol=1e-5)


def focus(graph: Build, order: list[tuple[int, int]], tail: str, **weights: np.ndarray) -> ir.Model:
    """Strided slices of x, one axis after the other, joined in `order`."""
    rows = " ".join(
        f"r{k} = Slice(x, n{i}, all, two, step) s{k} = Slice(r{k}, n{j}, all, three, step)"
        for k, (i, j) in enumerate(order)
    )
    joined = ", ".join(f"s{k}" for k in range(len(order)))
    numbers = {"n0": 0, "n1": 1, "all": 2**63 - 1, "two": 2, "three": 3, "step": 2}
    body = f"{rows} c = Concat<axis = 1>({joined}) {tail}"
    return graph(
        f"net (float[1, 3, 6, 8] x) => (float[] y) {{ {body} }}",
        **{name: np.asarray([number], np.int64) for name, number in numbers.items()},
        **weights,
    )


YOLO = [(0, 0), (1, 0), (0, 1), (1, 1)]
ROWS = [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    ("order", "tail", "left"),
    [
        (YOLO, "y = Conv(c, w)", ["SpaceToDepth", "Conv"]),
        (ROWS, "y = Conv(c, w)", ["SpaceToDepth", "Conv"]),
        (ROWS, "y = Relu(c)", ["SpaceToDepth", "Relu"]),
        (YOLO, "y = Relu(c)", None),
        (YOLO, "y = Conv<group = 2>(c, v)", None),
        ([(0, 0), (0, 0), (0, 1), (1, 1)], "y = Relu(c)", None),
    ],
    ids=["focus", "rows", "rows_any_reader", "focus_other_reader", "focus_groups", "repeated"],
)
def test_focus_becomes_space_to_depth(
    order: list[tuple[int, int]],
    tail: str,
    left: list[str] | None,
    graph: Build,
    run: Run,
    rng: np.random.Generator,
) -> None:
    model = focus(
        graph,
        order,
        tail,
        w=rng.normal(size=(5, 12, 1, 1)).astype(np.float32),
        v=rng.normal(size=(4, 6, 1, 1)).astype(np.float32),
    )
    x = rng.normal(size=(1, 3, 6, 8)).astype(np.float32)
    before = run(model, {"x": x})["y"]

    optimize(model, Report())

    kinds = [node.op_type for node in model.graph]
    assert kinds == left if left is not None else "SpaceToDepth" not in kinds
    np.testing.assert_allclose(run(model, {"x": x})["y"], before, rtol=1e-5, atol=1e-5)

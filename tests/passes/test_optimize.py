from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_ir.passes import common

from qconvert.passes.order import ORDER, optimize
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from tests.passes.conftest import Build, Run


def weights(rng: np.random.Generator, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Random weights; those called v* are variances."""
    return {
        name: np.asarray(
            rng.uniform(0.5, 2.0, shape) if name.startswith("v") else rng.normal(size=shape),
            dtype=np.float32,
        )
        for name, shape in shapes.items()
    }


@dataclass(frozen=True)
class Case:
    """A graph body from x to y, and the operators that are left of it."""

    id: str
    body: str
    left: list[str]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    x: str = "float[1, 4, 6, 6] x"


BN = {"g": (6,), "b": (6,), "m": (6,), "v": (6,)}
W = {"w": (6, 4, 3, 3)}

FOLDS = [
    Case(
        "conv_bn",
        "[c] a = Conv(x, w) [bn] y = BatchNormalization(a, g, b, m, v)",
        ["Conv"],
        {**W, **BN},
    ),
    Case(
        "conv_bias_bn_mul_add",
        "[c] a = Conv(x, w, e) [bn] s = BatchNormalization(a, g, b, m, v)"
        "[mul] t = Mul(s, k) [add] y = Add(l, t)",
        ["Conv"],
        {**W, **BN, "e": (6,), "k": (1, 6, 1, 1), "l": (6, 1, 1)},
    ),
    Case(
        "mul_before_bn",
        "[c] a = Conv(x, w) [mul] t = Mul(a, k) [bn] y = BatchNormalization(t, g, b, m, v)",
        ["Conv"],
        {**W, **BN, "k": (6, 1, 1)},
    ),
    Case(
        "sub_and_div",
        "[c] a = Conv(x, w) [sub] s = Sub(a, k) [rsub] t = Sub(l, s) [div] y = Div(t, n)",
        ["Conv"],
        {**W, "k": (6, 1, 1), "l": (1,), "n": (1, 6, 1, 1)},
    ),
    Case(
        "grouped_conv_bn",
        "[c] a = Conv<group = 2>(x, w) [bn] y = BatchNormalization(a, g, b, m, v)",
        ["Conv"],
        {**BN, "w": (6, 2, 3, 3)},
    ),
    Case(
        "grouped_deconv_bn",
        "[c] a = ConvTranspose<group = 2>(x, w, e) [bn] y = BatchNormalization(a, g, b, m, v)",
        ["ConvTranspose"],
        {**BN, "w": (4, 3, 2, 2), "e": (6,)},
    ),
    Case(
        "gemm_bn",
        "[c] a = Gemm(x, w, e) [bn] y = BatchNormalization(a, g, b, m, v)",
        ["Gemm"],
        {**BN, "w": (5, 6), "e": (1, 6)},
        "float[1, 5] x",
    ),
    Case(
        "gemm_alpha_beta",
        "[c] y = Gemm<alpha = 0.5, beta = 2.0, transB = 1>(x, w, e)",
        ["Gemm"],
        {"w": (6, 5), "e": (6,)},
        "float[1, 5] x",
    ),
    Case(
        "matmul_add",
        "[c] a = MatMul(x, w) [add] y = Add(a, e)",
        ["Gemm"],
        {"w": (5, 6), "e": (6,)},
        "float[1, 5] x",
    ),
    Case(
        "bn_before_unpadded_conv",
        "[bn] a = BatchNormalization(x, g, b, m, v) [c] y = Conv<group = 2>(a, w)",
        ["Conv"],
        {"g": (4,), "b": (4,), "m": (4,), "v": (4,), "w": (6, 2, 3, 3)},
    ),
    Case(
        "bn_before_gemm",
        "[bn] a = BatchNormalization(x, g, b, m, v) [c] y = Gemm(a, w, e)",
        ["Gemm"],
        {"g": (5,), "b": (5,), "m": (5,), "v": (5,), "w": (5, 6), "e": (6,)},
        "float[1, 5] x",
    ),
    Case(
        "noops",
        "[i] a = Identity(x) [d] e = Dropout(a) [t] f = Transpose<perm = [0, 1, 2, 3]>(e)"
        "[p] h = AveragePool<kernel_shape = [1, 1]>(f) [r] y = Relu(h)",
        ["Relu"],
    ),
    Case(
        "computed_shape",
        "[s] a = Shape(x) [k] t = Constant<value = int64[1] {0}>() [ga] n = Gather(a, t)"
        "[k2] o = Constant<value = int64[1] {-1}>() [co] d = Concat<axis = 0>(n, o)"
        "[r] y = Reshape(x, d)",
        ["Reshape"],
    ),
    Case(
        "kept_other_reader",
        "[c] a = Conv(x, w) [bn] s = BatchNormalization(a, g, b, m, v) [add] y = Add(a, s)",
        ["Conv", "BatchNormalization", "Add"],
        {**W, **BN},
    ),
    Case(
        "kept_padded",
        "[bn] a = BatchNormalization(x, g, b, m, v) [c] y = Conv<pads = [1, 1, 1, 1]>(a, w)",
        ["BatchNormalization", "Conv"],
        {"g": (4,), "b": (4,), "m": (4,), "v": (4,), **W},
    ),
    Case(
        "kept_spatial_constant",
        "[c] a = Conv(x, w) [add] y = Add(a, k)",
        ["Conv", "Add"],
        {**W, "k": (1, 6, 4, 1)},
    ),
]


@pytest.mark.parametrize("case", FOLDS, ids=lambda case: case.id)
def test_optimizing_keeps_the_result_and_leaves_what_it_should(
    case: Case, graph: Build, run: Run, rng: np.random.Generator
) -> None:
    model = graph(f"net ({case.x}) => (float[] y) {{ {case.body} }}", **weights(rng, **case.shapes))
    shape = tuple(model.graph.inputs[0].shape.numpy())  # type: ignore[union-attr] # it has one
    x = rng.normal(size=shape).astype(np.float32)
    before = run(model, {"x": x})["y"]

    optimize(model, Report())

    assert [node.op_type for node in model.graph] == case.left
    np.testing.assert_allclose(run(model, {"x": x})["y"], before, rtol=1e-4, atol=1e-4)
    assert all(value.shape is not None for node in model.graph for value in node.outputs)


REASONS = [
    ("kept_other_reader", "fold_batchnorm: 'bn' stays: 'c' has other readers"),
    ("kept_padded", "fold_batchnorm: 'bn' stays: it does not follow a Conv, ConvTranspose or Gemm"),
    (
        "kept_spatial_constant",
        "fold_affine: 'add' stays: its constant varies along more than the channels",
    ),
]


@pytest.mark.parametrize(("name", "note"), REASONS, ids=[name for name, _ in REASONS])
def test_what_stays_says_why(name: str, note: str, graph: Build, rng: np.random.Generator) -> None:
    case = next(case for case in FOLDS if case.id == name)
    model = graph(f"net ({case.x}) => (float[] y) {{ {case.body} }}", **weights(rng, **case.shapes))
    report = Report()

    optimize(model, report)

    assert note in [str(each) for each in report.notes]


def test_layers_keep_their_names_and_outputs_take_the_last_ones(
    graph: Build, rng: np.random.Generator
) -> None:
    model = graph(
        """
        net (float[1, 4, 6, 6] data) => (float[1, 6, 4, 4] prob) {
          [conv1] raw = Conv(data, w)
          [bn1] conv1 = BatchNormalization(raw, g, b, m, v)
          [relu1] out = Relu(conv1)
          [drop] prob = Dropout(out)
        }
        """,
        **weights(rng, **W, **BN),
    )

    optimize(model, Report())

    rows = [(str(node.name), str(node.outputs[0].name)) for node in model.graph]
    assert rows == [("conv1", "conv1"), ("relu1", "prob")]
    assert str(model.graph.inputs[0].name) == "data"


def test_folding_into_one_reader_of_a_shared_weight_leaves_the_other_alone(
    graph: Build, run: Run, rng: np.random.Generator
) -> None:
    model = graph(
        """
        net (float[1, 4, 6, 6] x) => (float[1, 6, 4, 4] y, float[1, 6, 4, 4] z) {
          [one] a = Conv(x, w)
          [bn] y = BatchNormalization(a, g, b, m, v)
          [two] z = Conv(x, w)
        }
        """,
        **weights(rng, **W, **BN),
    )
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    before = run(model, {"x": x})

    optimize(model, Report())

    after = run(model, {"x": x})
    for name in ("y", "z"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-4, atol=1e-4)


def test_quantized_weights_take_a_factor_in_their_scale(
    graph: Build, run: Run, rng: np.random.Generator
) -> None:
    codes = rng.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8)
    scale = rng.uniform(0.01, 0.02, 6).astype(np.float32)
    model = graph(
        """
        net (float[1, 4, 6, 6] x) => (float[1, 6, 4, 4] y) {
          [dq] w = DequantizeLinear <axis = 0> (q, s)
          [c] a = Conv(x, w)
          [bn] y = BatchNormalization(a, g, b, m, v)
        }
        """,
        q=codes,
        s=scale,
        **weights(rng, **BN),
    )
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    before = run(model, {"x": x})["y"]

    optimize(model, Report())

    assert [node.op_type for node in model.graph] == ["DequantizeLinear", "Conv"]
    after = run(model, {"x": x})["y"]
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    stored = model.graph.initializers["q"].const_value
    assert stored is not None
    np.testing.assert_array_equal(np.abs(stored.numpy()), np.abs(codes))


@st.composite
def chains(draw: st.DrawFn) -> tuple[str, dict[str, tuple[int, ...]], str]:
    """A linear layer followed by up to five channel-wise operators."""
    groups = draw(st.sampled_from([1, 2]))
    layer = draw(st.sampled_from(["Conv", "ConvTranspose", "Gemm"]))
    shapes: dict[str, tuple[int, ...]]
    trail: tuple[int, ...] = ()
    if layer == "Gemm":
        shapes = {"w": (4, 6)}
        text, x = "t0 = Gemm(x, w)", "float[1, 4] x"
    else:
        shapes = {"w": (6, 4 // groups, 3, 3) if layer == "Conv" else (4, 6 // groups, 3, 3)}
        text, x = f"t0 = {layer}<group = {groups}>(x, w)", "float[1, 4, 5, 5] x"
        trail = (1, 1)
    steps = draw(st.lists(st.sampled_from(["bn", "Mul", "Add", "Sub", "rSub"]), max_size=5))
    for index, step in enumerate(steps):
        old, new = f"t{index}", f"t{index + 1}"
        if step == "bn":
            names = [f"{part}{index}" for part in "gbmv"]
            shapes.update(dict.fromkeys(names, (6,)))
            text += f" {new} = BatchNormalization({old}, {', '.join(names)})"
            continue
        shapes[f"k{index}"] = draw(st.sampled_from([(6, *trail), (1, 6, *trail), (1,), ()]))
        sides = [f"k{index}", old] if step == "rSub" else [old, f"k{index}"]
        text += f" {new} = {step.removeprefix('r')}({', '.join(sides)})"
    return f"net ({x}) => (float[] t{len(steps)}) {{ {text} }}", shapes, f"t{len(steps)}"


@given(chain=chains(), seed=st.integers(0, 2**32 - 1))
def test_chains_of_channelwise_operators_fold_whole(
    chain: tuple[str, dict[str, tuple[int, ...]], str], seed: int
) -> None:
    text, shapes, output = chain
    rng = np.random.default_rng(seed)
    tensors = [ir.tensor(array, name=name) for name, array in weights(rng, **shapes).items()]
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]>\n{text}', tensors)
    common.ShapeInferencePass()(model)
    shape = model.graph.inputs[0].shape
    assert shape is not None
    x = rng.normal(size=tuple(shape.numpy())).astype(np.float32)
    before = OnnxRuntime(model, optimize=False, threads=1).run({"x": x})[output]

    optimize(model, Report())

    assert model.graph.num_nodes() == 1
    after = OnnxRuntime(model, optimize=False, threads=1).run({"x": x})[output]
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3 * (1 + np.abs(before).max()))


def test_the_order_keeps_its_own_constraints() -> None:
    seen: set[object] = set()
    for step in ORDER:
        assert seen.issuperset(step.after), step.make
        seen.add(step.make)
    assert len(seen) == len(ORDER)


@pytest.mark.parametrize(
    "text",
    [
        "net (float[1, 2] x) => (float[1, 2] y) { y = Identity(x) }",
        "net (float[1, 2] x) => (float[1, 2] y, float[1, 2] z) { y = Relu(x) z = Identity(y) }",
        "net (float[1, 2] x) => (float[1] y) { y = Constant<value = float[1] {2}>() }",
    ],
    ids=["input_is_output", "two_names_for_one_output", "constant_output"],
)
def test_outputs_keep_their_names_when_nothing_computes_them(
    text: str, graph: Build, run: Run
) -> None:
    model = graph(text)
    x = np.ones((1, 2), np.float32)
    before = run(model, {"x": x})

    optimize(model, Report())

    after = run(model, {"x": x})
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)

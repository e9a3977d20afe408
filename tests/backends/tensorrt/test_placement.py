"""Where pairs stand, and which tensors share a scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qconvert.backends.tensorrt.sameness import Groups
from qconvert.plan import Scheme
from tests.backends.graphs import model_of
from tests.backends.tensorrt.support import planned, residual, weights_for

if TYPE_CHECKING:
    import numpy as np

    from qconvert.plan import Plan


def uses(plan: Plan) -> set[tuple[str, int, str]]:
    """(reader, input, tensor) of every quantized input."""
    return {(node, index, name) for name, readers in plan.uses.items() for node, index in readers}


def test_a_residual_add_reads_its_skip_quantized_and_its_convolution_not(
    rng: np.random.Generator,
) -> None:
    plan = planned(residual(rng))

    assert {entry for entry in uses(plan) if entry[0].startswith("add")} == {("add_6", 1, "p1")}


def test_layers_read_pairs_and_nothing_stands_at_outputs_or_before_activations(
    rng: np.random.Generator,
) -> None:
    plan = planned(residual(rng))

    assert uses(plan) == {
        ("conv_0", 0, "data"),
        ("conv_3", 0, "p1"),
        ("add_6", 1, "p1"),
        ("conv_5", 0, "r2"),
        ("conv_8", 0, "r3"),
        ("conv_10", 0, "r3"),
        ("globalaveragepool_13", 0, "cat"),
        ("gemm_15", 0, "f"),
    }
    assert set(plan.observed) == {"c3", "fc", "prob"}


def test_a_stack_of_moves_has_one_scale(rng: np.random.Generator) -> None:
    model = residual(rng)

    groups = [{str(value.name) for value in group} for group in Groups.of(model.graph)]

    assert {"r1", "p1"} in groups
    assert {"r4", "r5", "cat"} in groups
    assert {"g", "f"} in groups


def test_scales_reach_what_is_moved_or_cut_off(rng: np.random.Generator) -> None:
    model = residual(rng)

    found = Groups.of(model.graph).spread({"p1": 0.5, "cat": 0.25, "r3": 2.0})

    assert found == {
        "c1": 0.5, "r1": 0.5, "p1": 0.5, "s": 2.0, "r3": 2.0,
        "c4": 0.25, "r4": 0.25, "c5": 0.25, "r5": 0.25, "cat": 0.25,
    }  # fmt: skip


TWO_CONVS = """net (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] y) {
    a = Conv(x, w1)
    ar = Relu(a)
    b = Conv(ar, w2)
    d = Conv(x, w3)
    y = Add(d, b)
}"""


def test_of_two_convolutions_the_longer_branch_goes_on(rng: np.random.Generator) -> None:
    shapes = dict.fromkeys(("w1", "w2", "w3"), (16, 16, 1, 1))
    plan = planned(model_of(TWO_CONVS, **weights_for(rng, **shapes)))

    assert {entry for entry in uses(plan) if entry[0].startswith("add")} == {("add_4", 0, "d")}


def test_the_order_of_the_inputs_does_not_matter(rng: np.random.Generator) -> None:
    shapes = dict.fromkeys(("w1", "w2", "w3"), (16, 16, 1, 1))
    text = TWO_CONVS.replace("Add(d, b)", "Add(b, d)")
    plan = planned(model_of(text, **weights_for(rng, **shapes)))

    assert {entry for entry in uses(plan) if entry[0].startswith("add")} == {("add_4", 1, "d")}


def test_a_swish_is_not_torn_from_its_convolution(rng: np.random.Generator) -> None:
    body = """net (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] y) {
        a = Conv(x, w1)
        gate = Sigmoid(a)
        b = Mul(a, gate)
        y = Conv(b, w2)
    }"""
    shapes = dict.fromkeys(("w1", "w2"), (16, 16, 1, 1))
    plan = planned(model_of(body, **weights_for(rng, **shapes)))

    assert uses(plan) == {("conv_0", 0, "x"), ("conv_3", 0, "b")}


def test_a_gate_computed_in_float_is_multiplied_in_float(rng: np.random.Generator) -> None:
    body = """net (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] y) {
        a = Conv(x, w1)
        g = GlobalAveragePool(a)
        h = Conv(g, w2)
        gate = Sigmoid(h)
        b = Mul(a, gate)
        y = Conv(b, w3)
    }"""
    shapes = dict.fromkeys(("w1", "w2", "w3"), (16, 16, 1, 1))
    plan = planned(model_of(body, **weights_for(rng, **shapes)))

    assert not any(entry[0].startswith("mul") for entry in uses(plan))


def test_an_add_of_quantized_branches_is_quantized_on_both_sides(
    rng: np.random.Generator,
) -> None:
    body = """net (float[1, 16, 8, 8] x) => (float[1, 16, 1, 1] y) {
        a = Conv(x, w1)
        p = GlobalAveragePool(a)
        b = Conv(x, w2)
        q = GlobalAveragePool(b)
        y = Add(p, q)
    }"""
    shapes = dict.fromkeys(("w1", "w2"), (16, 16, 1, 1))
    plan = planned(model_of(body, **weights_for(rng, **shapes)))

    assert {entry for entry in uses(plan) if entry[0] == "add_4"} == {
        ("add_4", 0, "p"), ("add_4", 1, "q"),
    }  # fmt: skip


def test_an_add_of_a_constant_is_none_of_our_business(rng: np.random.Generator) -> None:
    body = """net (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] y) {
        a = Conv(x, w1)
        y = Add(a, c)
    }"""
    plan = planned(model_of(body, **weights_for(rng, w1=(16, 16, 1, 1), c=(16, 1, 1))))

    assert uses(plan) == {("conv_0", 0, "x")}


KERNELS = [
    ("wide", (16, 16, 3, 3), 1, True),
    ("first_of_a_network", (8, 3, 3, 3), 1, True),
    ("odd_channels", (10, 3, 3, 3), 1, False),
    ("depthwise", (24, 1, 3, 3), 24, True),
    ("depthwise_1x1", (24, 1, 1, 1), 24, False),
    ("depthwise_odd", (20, 1, 3, 3), 20, False),
    ("oblong", (8, 16, 1, 3), 1, False),
]


@pytest.mark.parametrize(("_", "shape", "groups", "runs"), KERNELS, ids=[k[0] for k in KERNELS])
def test_convolutions_without_an_integer_kernel_stay_float(
    _: str, shape: tuple[int, ...], groups: int, rng: np.random.Generator, *, runs: bool
) -> None:
    body = f"""net (float[1, {shape[1] * groups}, 8, 8] x) => (float[1, {shape[0]}, a, b] y) {{
        y = Conv<group = {groups}, pads = [1, 1, 1, 1]>(x, w)
    }}"""
    plan = planned(model_of(body, **weights_for(rng, w=shape)))

    assert [layer.node for layer in plan.layers] == (["conv_0"] if runs else [])
    assert ("conv_0" in plan.kept_float) is not runs


def test_layers_the_user_keeps_in_float_read_no_pair(rng: np.random.Generator) -> None:
    plan = planned(residual(rng), Scheme(float_layers=("conv_5",)))

    # Nothing is left for the Add to be fused to: both its sides would have to be integers.
    assert not any(entry[0] in {"conv_5", "add_6"} for entry in uses(plan))

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.errors import UsageError
from qconvert.passes.planning import plan
from qconvert.passes.policies import ANY
from qconvert.plan import OpRule, Policy, Scheme
from qconvert.report import Report

if TYPE_CHECKING:
    import onnx_ir as ir

    from tests.passes.conftest import Build

LAYERS = Policy(
    target="layers",
    rules={
        "Conv": OpRule("Conv", "compute", "group", ranks=frozenset({4})),
        "Gemm": OpRule("Gemm", "compute", "channel"),
        "Concat": OpRule("Concat", "aligned"),
    },
    weight_bits=frozenset({7, 8}),
    activation_bits=frozenset({7, 8}),
)

INTEGERS = Policy(
    target="integers",
    rules={
        "Conv": OpRule("Conv", "compute", "channel"),
        "Gemm": OpRule("Gemm", "compute", "channel"),
        "MatMul": OpRule("MatMul", "compute", "channel"),
        "Add": OpRule("Add", "compute"),
        "Relu": OpRule("Relu", "inherits"),
        "MaxPool": OpRule("MaxPool", "inherits"),
        "Concat": OpRule("Concat", "aligned"),
    },
    weight_bits=frozenset({4, 7, 8}),
    activation_bits=frozenset({7, 8}),
    asymmetric=True,
    integer_graph=True,
)

NET = """
net (float[1, 4, 8, 8] x) => (float[1, 10, 4, 4] prob, float[1, 10, 4, 4] y) {
  [conv1] a = Conv <kernel_shape = [1, 1]> (x, w1)
  [relu1] r = Relu (a)
  [pool] p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
  [conv2] b = Conv <kernel_shape = [1, 1]> (p, w2)
  [conv3] c = Conv <kernel_shape = [1, 1], group = 2> (p, w3)
  [cat] d = Concat <axis = 1> (b, c)
  [conv4] y = Conv <kernel_shape = [1, 1]> (d, w4)
  [soft] prob = Softmax <axis = 1> (y)
}
"""


@pytest.fixture
def net(graph: Build, rng: np.random.Generator) -> ir.Model:
    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return graph(
        NET, w1=draw(6, 4, 1, 1), w2=draw(4, 6, 1, 1), w3=draw(4, 3, 1, 1), w4=draw(10, 8, 1, 1)
    )


def test_layer_target_quantizes_the_inputs_of_its_layers_only(net: ir.Model) -> None:
    chosen = plan(net, LAYERS, Scheme(), Report())

    assert [layer.node for layer in chosen.layers] == ["conv1", "conv2", "conv3", "conv4"]
    assert list(chosen.activations) == ["x", "p", "d"]
    assert chosen.ties == ()
    assert [layer.granularity for layer in chosen.layers] == ["channel"] * 2 + ["group", "channel"]


def test_integer_target_quantizes_between_its_operators_but_not_before_a_fused_relu(
    net: ir.Model,
) -> None:
    chosen = plan(net, INTEGERS, Scheme(), Report())

    assert list(chosen.activations) == ["x", "r", "p", "b", "c", "d"]
    assert chosen.ties == (("r", "p"), ("b", "c", "d"))
    assert chosen.every_reader


def test_any_target_wants_every_value(net: ir.Model) -> None:
    chosen = plan(net, ANY, Scheme(), Report())

    assert list(chosen.activations) == ["x", "a", "r", "p", "b", "c", "d", "y", "prob"]
    assert chosen.ties == ()


def test_float_layers_stay_float_and_say_why(net: ir.Model) -> None:
    chosen = plan(net, LAYERS, Scheme(float_layers=("conv[14]",)), Report())

    assert [layer.node for layer in chosen.layers] == ["conv2", "conv3"]
    assert list(chosen.activations) == ["p"]
    assert "--float conv[14]" in chosen.kept_float["conv1"]


def test_last_matching_width_counts_and_readers_agree_on_the_widest(net: ir.Model) -> None:
    report = Report()

    chosen = plan(net, LAYERS, Scheme(layer_bits={"conv*": 7, "conv3": 8}), report)

    assert [layer.weight_bits for layer in chosen.layers] == [7, 7, 8, 7]
    assert chosen.activations["p"].bits == 8
    assert chosen.activations["x"].bits == 7
    assert any("'p' want [7, 8] bits" in warning for warning in report.warnings)


def test_tied_values_have_one_width(net: ir.Model) -> None:
    chosen = plan(net, INTEGERS, Scheme(layer_bits={"conv4": 7}), Report())

    assert {chosen.activations[name].bits for name in ("b", "c", "d")} == {8}


def test_unsigned_codes_go_to_values_that_are_never_negative(net: ir.Model) -> None:
    chosen = plan(net, INTEGERS, Scheme(unsigned=True), Report())

    assert [name for name, spec in chosen.activations.items() if spec.unsigned] == ["r", "p"]


def test_patterns_without_a_match_are_warned_of(net: ir.Model) -> None:
    report = Report()

    plan(net, LAYERS, Scheme(float_layers=("cnov1",), layer_bits={"fc*": 8}), report)

    assert report.warnings == [
        "--float cnov1 matches no layer that could be quantized",
        "--layer-bits fc* matches no layer that could be quantized",
    ]


def test_input_scale_reaches_the_plan(net: ir.Model) -> None:
    chosen = plan(net, LAYERS, Scheme(input_scales={"x": 1 / 128}), Report())

    assert chosen.activations["x"].fixed_scale == 1 / 128
    assert chosen.activations["p"].fixed_scale is None


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (Scheme(weight_bits=4), "layers has no 4-bit numbers"),
        (Scheme(activation_bits=16), "layers has no 16-bit numbers"),
        (Scheme(layer_bits={"conv1": 16}), "layers has no 16-bit numbers"),
        (Scheme(asymmetric=True), "layers has signed symmetric activations only"),
        (Scheme(unsigned=True), "layers has signed symmetric activations only"),
        (Scheme(input_scales={"data": 0.1}), "the network has no input 'data'"),
        (Scheme(input_scales={"x": 0.0}), "0.0 is not a scale"),
        (Scheme(input_scales={"x": float("nan")}), "nan is not a scale"),
    ],
)
def test_requests_a_target_cannot_meet_are_refused(
    scheme: Scheme, message: str, net: ir.Model
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(net, LAYERS, scheme, Report())


def test_layers_the_target_has_no_kernel_for_say_why(graph: Build) -> None:
    model = graph(
        """
        net (float[1, 2, 8] x, float[1, 2, 4, 4] z, float[2, 2, 1, 1] k)
            => (float[1, 2, 8] y, float[1, 2, 4, 4] u) {
          [line] y = Conv <kernel_shape = [1]> (x, w)
          [dynamic] u = Conv <kernel_shape = [1, 1]> (z, k)
        }
        """,
        w=np.ones((2, 2, 1), np.float32),
    )

    chosen = plan(model, LAYERS, Scheme(), Report())

    assert chosen.layers == ()
    assert chosen.kept_float == {
        "line": "layers has no integer Conv for inputs of rank 3",
        "dynamic": "its weight is computed at run time",
    }


def test_product_of_two_activations_is_planned_without_a_weight(graph: Build) -> None:
    model = graph("net (float[2, 3] x, float[3, 4] z) => (float[2, 4] y) { [m] y = MatMul (x, z) }")

    chosen = plan(model, INTEGERS, Scheme(), Report())

    assert [(layer.node, layer.weight) for layer in chosen.layers] == [("m", None)]
    assert list(chosen.activations) == ["x", "z"]

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.errors import CalibrationError
from qconvert.passes.fit_encodings import fit
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.planning import plan
from qconvert.plan import ActivationSpec, OpRule, Plan, Policy, Scheme
from qconvert.quant import (
    Encodings,
    QParams,
    asymmetric,
    dequantize,
    is_power_of_two,
    symmetric,
)
from qconvert.report import Report
from tests.passes.reading import encodings_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from tests.passes.conftest import Build, Run

LAYERS = Policy(
    target="layers",
    rules={
        "Conv": OpRule("Conv", "compute", "group"),
        "ConvTranspose": OpRule("ConvTranspose", "compute", "channel"),
        "Gemm": OpRule("Gemm", "compute", "channel"),
    },
    weight_bits=frozenset(range(2, 17)),
    activation_bits=frozenset({2, 3, 4, 5, 6, 7, 8, 16}),
    asymmetric=True,
)

NET = """
net (float[1, 4, 9, 9] x) => (float[1, 3] y) {
  [conv1] a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w1, b1)
  [relu1] r = Relu (a)
  [conv2] c = Conv <kernel_shape = [3, 3], group = 2> (r, w2)
  [conv3] d = Conv <kernel_shape = [3, 3]> (r, w3, b3)
  [up] u = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]> (d, w4)
  [add] e = Add (c, d)
  [pool] g = GlobalAveragePool (e)
  [flat] f = Flatten (g)
  [fc] y = Gemm <transB = 1> (f, w5, b5)
}
"""


@pytest.fixture
def net(graph: Build, rng: np.random.Generator) -> ir.Model:
    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return graph(
        NET,
        w1=draw(6, 4, 3, 3),
        b1=draw(6),
        w2=draw(4, 3, 3, 3),
        w3=draw(4, 6, 3, 3),
        b3=draw(4),
        w4=draw(4, 5, 2, 2),
        w5=draw(3, 4),
        b5=draw(3),
    )


def encode(model: ir.Model, chosen: Plan, threshold: float = 30.0) -> Encodings:
    """Plain encodings for everything a plan names: a fixed range, and largest magnitudes."""
    encodings = Encodings()
    for name, spec in chosen.activations.items():
        if spec.asymmetric or spec.unsigned:
            low = 0.0 if spec.unsigned else -threshold / 2
            params: QParams = asymmetric(low, threshold, bits=spec.bits)
        else:
            params = symmetric(threshold, bits=spec.bits)
        encodings.activations[name] = params
    for layer in chosen.layers:
        if layer.weight is None:
            continue
        tensor = model.graph.initializers[layer.weight].const_value
        assert tensor is not None
        array = tensor.numpy()
        others = tuple(axis for axis in range(array.ndim) if axis != layer.weight_axis)
        limits = np.abs(array).max(axis=others)
        encodings.weights[layer.weight] = symmetric(
            limits, bits=layer.weight_bits, axis=layer.weight_axis
        )
    return encodings


@dataclass(frozen=True)
class Case:
    id: str
    scheme: Scheme
    error: float


CASES = [
    Case("int8", Scheme(), 0.03),
    Case("int7", Scheme(weight_bits=7, activation_bits=7), 0.06),
    Case("weights_4_per_tensor", Scheme(weight_bits=4, activation_bits=6, per_tensor=True), 0.5),
    Case("asymmetric", Scheme(asymmetric=True), 0.03),
    Case("unsigned_5", Scheme(unsigned=True, activation_bits=5), 0.3),
    Case("weights_12_activations_16", Scheme(weight_bits=12, activation_bits=16), 0.001),
    Case("mixed", Scheme(layer_bits={"conv*": 7, "conv3": 16}), 0.06),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_quantized_model_is_valid_and_the_same_at_every_optimization_level(
    case: Case, net: ir.Model, run: Run, rng: np.random.Generator
) -> None:
    chosen = plan(net, LAYERS, case.scheme, Report())
    x = rng.normal(size=(1, 4, 9, 9)).astype(np.float32)

    quantized = insert_qdq(net, chosen, encode(net, chosen))

    plain = run(quantized, {"x": x})["y"]
    np.testing.assert_allclose(plain, run(quantized, {"x": x}, optimize=True)["y"], atol=1e-4)
    reference = run(net, {"x": x})["y"]
    assert 0 < np.abs(plain - reference).max() / np.abs(reference).max() < case.error


def test_one_pair_serves_every_reader_and_others_read_the_float_value(net: ir.Model) -> None:
    chosen = plan(net, LAYERS, Scheme(), Report())

    quantized = insert_qdq(net, chosen, encode(net, chosen))

    kinds = [node.op_type for node in quantized.graph]
    assert kinds.count("QuantizeLinear") == len({layer.input for layer in chosen.layers}) == 4
    nodes = {str(node.name): node for node in quantized.graph}
    assert nodes["conv2"].inputs[0] is nodes["conv3"].inputs[0]
    assert [str(value.name) for value in nodes["conv2"].inputs if value] == [
        "r/dequantized",
        "w2/dequantized",
    ]
    assert [str(value.name) for value in nodes["add"].inputs if value] == ["c", "d"]


def test_the_float_model_stays_as_it_was(net: ir.Model) -> None:
    before = [(str(node.name), node.op_type) for node in net.graph], set(net.graph.initializers)
    chosen = plan(net, LAYERS, Scheme(), Report())

    insert_qdq(net, chosen, encode(net, chosen))

    assert before == (
        [(str(node.name), node.op_type) for node in net.graph],
        set(net.graph.initializers),
    )


def test_missing_encodings_are_all_named(net: ir.Model) -> None:
    chosen = plan(net, LAYERS, Scheme(), Report())
    encodings = encode(net, chosen)
    del encodings.activations["r"], encodings.weights["w3"], encodings.weights["w5"]

    with pytest.raises(CalibrationError) as caught:
        insert_qdq(net, chosen, encodings)

    assert caught.value.at == "r, w3, w5"


def test_encodings_of_another_width_are_refused(net: ir.Model) -> None:
    seven = plan(net, LAYERS, Scheme(weight_bits=7), Report())
    eight = plan(net, LAYERS, Scheme(), Report())

    with pytest.raises(CalibrationError, match="another width"):
        insert_qdq(net, seven, encode(net, eight))


def test_grouped_convolution_gets_one_scale_per_group(net: ir.Model) -> None:
    chosen = plan(net, LAYERS, Scheme(), Report())
    encodings = encode(net, chosen)

    quantized = insert_qdq(net, chosen, encodings)

    stored = quantized.graph.initializers["w2/scale"].const_value
    assert stored is not None
    found = encodings.weights["w2"].scale.reshape(2, 2).max(axis=1)
    np.testing.assert_array_equal(stored.numpy(), np.repeat(found, 2))


def test_chosen_codes_and_corrected_biases_are_used(net: ir.Model) -> None:
    chosen = plan(net, LAYERS, Scheme(), Report())
    encodings = encode(net, chosen)
    codes = np.full((6, 4, 3, 3), -3, np.int8)
    encodings.rounded["w1"] = codes
    encodings.biases["b1"] = np.arange(6, dtype=np.float32)

    quantized = insert_qdq(net, chosen, encodings)

    initializers = quantized.graph.initializers
    stored, bias = initializers["w1/codes"].const_value, initializers["b1"].const_value
    assert stored is not None
    assert bias is not None
    np.testing.assert_array_equal(stored.numpy(), codes)
    np.testing.assert_array_equal(bias.numpy(), np.arange(6))
    original = net.graph.initializers["b1"].const_value
    assert original is not None
    assert not np.array_equal(original.numpy(), np.arange(6))


def test_chosen_codes_are_rounded_again_where_scales_get_coarser(net: ir.Model) -> None:
    chosen = plan(net, LAYERS, Scheme(), Report())
    encodings = encode(net, chosen)
    fine = encodings.weights["w2"]
    held = net.graph.initializers["w2"].const_value
    assert held is not None
    codes = (np.arange(held.size).reshape(held.numpy().shape) % 200 - 100).astype(np.int8)
    encodings.rounded["w2"] = codes

    fitted = fit(chosen, encodings)

    coarse = fitted.weights["w2"]
    assert not np.array_equal(coarse.scale, fine.scale)
    wanted, found = dequantize(codes, fine), dequantize(fitted.rounded["w2"], coarse)
    assert np.abs(wanted - found).max() <= 0.5001 * coarse.scale.max()


def test_codes_out_of_range_are_refused(net: ir.Model) -> None:
    chosen = plan(net, LAYERS, Scheme(), Report())
    encodings = encode(net, chosen)
    encodings.rounded["w1"] = np.full((6, 4, 3, 3), -128, np.int8)

    with pytest.raises(CalibrationError, match="do not fit"):
        insert_qdq(net, chosen, encodings)


def test_shared_weight_is_stored_once(graph: Build, rng: np.random.Generator) -> None:
    model = graph(
        """
        net (float[1, 4, 5, 5] x) => (float[1, 4, 5, 5] y) {
          [first] a = Conv <kernel_shape = [1, 1]> (x, w)
          [second] y = Conv <kernel_shape = [1, 1]> (a, w)
        }
        """,
        w=rng.normal(size=(4, 4, 1, 1)).astype(np.float32),
    )
    report = Report()
    chosen = plan(model, LAYERS, Scheme(layer_bits={"second": 6}), report)

    quantized = insert_qdq(model, chosen, encode(model, chosen))

    assert [name for name in quantized.graph.initializers if name.endswith("codes")] == ["w/codes"]
    assert {layer.weight_bits for layer in chosen.layers} == {8}
    assert any("share 'w'" in warning for warning in report.warnings)


INTEGERS = Policy(
    target="integers",
    rules={
        "Conv": OpRule("Conv", "compute", "channel"),
        "ConvTranspose": OpRule("ConvTranspose", "compute", "channel"),
        "Gemm": OpRule("Gemm", "compute", "channel"),
        "Add": OpRule("Add", "aligned"),
        "GlobalAveragePool": OpRule("GlobalAveragePool", "compute"),
        "Flatten": OpRule("Flatten", "inherits"),
    },
    weight_bits=frozenset({8}),
    activation_bits=frozenset({16}),
    integer_graph=True,
    quantize_outputs=True,
)


def test_integer_graph_quantizes_everything_and_keeps_the_names_of_outputs(
    net: ir.Model, run: Run, rng: np.random.Generator
) -> None:
    chosen = plan(net, INTEGERS, Scheme(activation_bits=16), Report())
    encodings = encode(net, chosen, threshold=150.0)
    # Tied values that were calibrated apart get the widest of their scales.
    encodings.activations["c"] = symmetric(10.0, bits=16)

    quantized = insert_qdq(net, chosen, encodings)

    assert [str(value.name) for value in quantized.graph.outputs] == ["y"]
    found = encodings_of(quantized).activations
    assert set(found) == set(chosen.activations) == {"x", "r", "c", "d", "e", "g", "f", "u", "y"}
    assert (
        found["c"].scale == found["d"].scale == found["e"].scale == symmetric(150.0, bits=16).scale
    )
    x = rng.normal(size=(1, 4, 9, 9)).astype(np.float32)
    outputs = run(quantized, {"x": x})
    reference = run(net, {"x": x})["y"]
    assert np.abs(outputs["y"] - reference).max() < 0.02 * np.abs(reference).max()
    steps = outputs["y"] / found["y"].scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=0.02)


@pytest.mark.parametrize("zero_point", [0, 37], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("power_of_two", [False, True], ids=["free", "power of two"])
def test_what_leaves_an_integer_graph_keeps_its_range_at_another_width(
    power_of_two: bool, zero_point: int
) -> None:
    given = QParams(
        np.asarray(0.25, np.float32), np.asarray(zero_point, np.int32),
        signed=not zero_point, symmetric=not zero_point,
    )  # fmt: skip
    specs = {"y": ActivationSpec(bits=16, result=True)}
    layout = Plan("test", (), specs, power_of_two=power_of_two)

    found = fit(layout, Encodings({"y": given})).activations["y"]

    ends = [float(found.scale) * (code - int(found.zero_point)) for code in (found.low, found.high)]
    wanted = [0.25 * (code - zero_point) for code in (given.low, given.high)]
    assert found.bits == 16
    assert is_power_of_two(found.scale) or not power_of_two
    assert ends[0] <= wanted[0] + found.scale
    assert ends[1] >= wanted[1] - found.scale
    assert ends[1] - ends[0] <= (2.1 if power_of_two else 1.01) * (wanted[1] - wanted[0])

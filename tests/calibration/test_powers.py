"""Power-of-two scales and exponents as weights, through every method and into the graph."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from qconvert.calibration.run import calibrate
from qconvert.calibration.settings import Settings
from qconvert.dataset.samples import Sample
from qconvert.errors import CalibrationError, UnsupportedError, UsageError
from qconvert.passes.fit_encodings import fit
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.planning import plan
from qconvert.plan import OpRule, Policy, Scheme
from qconvert.progress import Quiet
from qconvert.quant import LOG2_BITS, dequantize, is_power_of_two, quantize
from qconvert.recipe import METHODS
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from qconvert.plan import Plan
    from qconvert.quant import Encodings

RULES = {kind: OpRule(kind, "compute", weights="channel") for kind in ("Conv", "Gemm")}
GRAPH = RULES | {"Add": OpRule("Add", "aligned"), "Relu": OpRule("Relu", "inherits")}
WIDTHS = frozenset(range(2, 9))


def policy(*, graph: bool = False, exponents: bool = True) -> Policy:
    return Policy(
        "test",
        GRAPH if graph else RULES,
        WIDTHS,
        WIDTHS,
        asymmetric=True,
        integer_graph=graph,
        log2_bits=LOG2_BITS if exponents else frozenset(),
    )


@pytest.fixture
def model(rng: np.random.Generator) -> ir.Model:
    """Two convolutions, an Add where they meet, a Gemm."""
    weights = {
        "w1": rng.normal(size=(4, 3, 3, 3)),
        "w2": rng.laplace(size=(4, 4, 3, 3)) * np.exp(rng.normal(size=(4, 1, 1, 1))),
        "w3": rng.normal(size=(64, 5)),
        "b": rng.normal(size=5),
    }
    made = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 3, 8, 8] x) => (float[1, 5] y) {
            [conv1] a = Conv<pads = [1, 1, 1, 1]>(x, w1)
            [relu] r = Relu(a)
            [conv2] c = Conv<pads = [1, 1, 1, 1]>(r, w2)
            [add] s = Add(r, c)
            [pool] p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(s)
            [flat] f = Flatten(p)
            [fc] y = Gemm(f, w3, b)
        }""",
        [ir.tensor(array.astype(np.float32), name=name) for name, array in weights.items()],
    )
    common.ShapeInferencePass()(made)
    return made


@pytest.fixture
def samples(rng: np.random.Generator) -> list[Sample]:
    return [Sample(f"x[{i}]", {"x": rng.normal(size=(1, 3, 8, 8)).astype("f4")}) for i in range(6)]


def calibrated(
    model: ir.Model, samples: list[Sample], scheme: Scheme, target: Policy, **choices: str
) -> tuple[Plan, Encodings]:
    settings = Settings(threads=1, effort="fast", **choices)  # type: ignore[arg-type] # texts of Literals
    layout = plan(model, target, scheme, Report())
    found = calibrate(model, layout, samples, settings, Report(), Quiet())  # type: ignore[arg-type] # a list will do
    return layout, found.encodings


def error(model: ir.Model, quantized: ir.Model, samples: list[Sample]) -> float:
    """Mean squared error of the outputs, relative to their size."""
    with OnnxRuntime(model, threads=1) as left, OnnxRuntime(quantized, threads=1) as right:
        pairs = [(left.run(s.inputs)["y"], right.run(s.inputs)["y"]) for s in samples]
    return float(np.mean([np.square(a - b).sum() / np.square(a).sum() for a, b in pairs]))


@pytest.mark.parametrize("graph", [False, True], ids=["layers", "graph"])
@pytest.mark.parametrize("asymmetric", [False, True], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_give_powers_of_two(
    method: str, asymmetric: bool, graph: bool, model: ir.Model, samples: list[Sample]
) -> None:
    scheme = Scheme(power_of_two=True, asymmetric=asymmetric)
    target = policy(graph=graph)
    layout, encodings = calibrated(model, samples, scheme, target, method=method)

    fitted = fit(layout, encodings)
    quantized = insert_qdq(model, layout, encodings)

    for params in (*fitted.activations.values(), *fitted.weights.values()):
        assert is_power_of_two(params.scale)
    # A step that is at most twice as wide costs at most four times the error, and chance a little.
    free = calibrated(model, samples, replace(scheme, power_of_two=False), target, method=method)
    assert error(model, quantized, samples) < 5 * error(model, insert_qdq(model, *free), samples)


def test_the_search_of_the_paper_keeps_powers_of_two(
    model: ir.Model, samples: list[Sample]
) -> None:
    scheme = Scheme(power_of_two=True, weight_bits=5, activation_bits=5)

    layout, encodings = calibrated(model, samples, scheme, policy(), eq_mode="paper")

    params = [*encodings.activations.values(), *encodings.weights.values()]
    assert all(is_power_of_two(each.scale) for each in params)
    assert layout.power_of_two


@pytest.mark.parametrize("bits", [8, 4], ids=str)
def test_the_better_neighbour_is_taken(bits: int, model: ir.Model, samples: list[Sample]) -> None:
    scheme = Scheme(power_of_two=True, weight_bits=bits)
    _, free = calibrated(model, samples, Scheme(weight_bits=bits), policy(), method="mse")
    _, encodings = calibrated(model, samples, scheme, policy(), method="mse")
    weight = model.graph.initializers["w2"].const_value
    assert weight is not None

    for channel, scale in enumerate(encodings.weights["w2"].scale.tolist()):
        row = weight.numpy()[channel].ravel()
        found = float(free.weights["w2"].scale[channel])
        errors = {
            power: np.square(row - power * np.clip(np.rint(row / power), -top, top)).sum()
            for top in (2 ** (bits - 1) - 1,)
            for power in (2.0 ** np.floor(np.log2(found)), 2.0 ** np.ceil(np.log2(found)))
        }
        assert errors[scale] == min(errors.values())


@pytest.mark.parametrize("method", ["minmax", "easyquant"])
def test_exponents_stand_in_the_graph_as_a_function(
    method: str, model: ir.Model, samples: list[Sample]
) -> None:
    scheme = Scheme(weight_bits=4, log2_weights=True)
    layout, encodings = calibrated(model, samples, scheme, policy(), method=method)

    quantized = insert_qdq(model, layout, encodings)

    common.CheckerPass()(quantized)
    assert [node.op_type for node in quantized.graph].count("DequantizeLog2") == 3
    assert error(model, quantized, samples) < 0.15
    inlined = quantized.clone()
    common.InlinePass()(inlined)
    assert error(quantized, inlined, samples) == 0


def test_the_scale_of_exponents_loses_little(model: ir.Model, samples: list[Sample]) -> None:
    _, encodings = calibrated(
        model, samples, Scheme(weight_bits=4, log2_weights=True), policy(), method="minmax"
    )
    held, params = model.graph.initializers["w2"].const_value, encodings.weights["w2"]
    assert held is not None
    weight = held.numpy()
    loss = np.square(weight - dequantize(quantize(weight, params), params)).sum(axis=(1, 2, 3))

    for channel, row in enumerate(weight.reshape(4, -1)):
        tried = []
        for scale in np.geomspace(0.05, 1.5, 400) * np.abs(row).max():
            values = scale * 2.0 ** np.arange(-6, 1)
            grid = np.concatenate([-values, [0], values])
            tried.append(np.square(row - grid[np.abs(row[:, None] - grid).argmin(1)]).sum())
        assert loss[channel] <= 1.05 * min(tried)


def test_wider_layers_keep_uniform_codes(model: ir.Model, samples: list[Sample]) -> None:
    scheme = Scheme(weight_bits=3, log2_weights=True, layer_bits={"fc": 8})

    layout, encodings = calibrated(model, samples, scheme, policy(), method="kl")

    kinds = {name: (p.log2, p.bits) for name, p in encodings.weights.items()}
    assert kinds == {"w1": (True, 3), "w2": (True, 3), "w3": (False, 8)}
    insert_qdq(model, layout, encodings)


def test_a_target_without_exponents_refuses_them(model: ir.Model) -> None:
    scheme = Scheme(weight_bits=4, log2_weights=True)

    with pytest.raises(UnsupportedError, match="powers of two"):
        plan(model, policy(exponents=False), scheme, Report())


def test_exponents_of_eight_bits_are_refused(model: ir.Model) -> None:
    with pytest.raises(UsageError, match="8-bit exponents"):
        plan(model, policy(), Scheme(log2_weights=True), Report())


def test_a_fixed_scale_must_be_a_power_of_two_too(model: ir.Model) -> None:
    scheme = Scheme(power_of_two=True, input_scales={"x": 0.01})

    with pytest.raises(UsageError, match="no power of two"):
        plan(model, policy(), scheme, Report())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Scheme(weight_bits=4, power_of_two=True), "no powers of two"),
        (Scheme(weight_bits=4, log2_weights=True), "another kind"),
    ],
    ids=["power of two", "exponents"],
)
def test_encodings_of_another_kind_are_refused(
    asked: Scheme, message: str, model: ir.Model, samples: list[Sample]
) -> None:
    _, encodings = calibrated(model, samples, Scheme(weight_bits=4), policy(), method="minmax")

    with pytest.raises(CalibrationError, match=message):
        fit(plan(model, policy(), asked, Report()), encodings)

"""The engine on small networks: every strategy, width and granularity, and what goes wrong."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from qconvert.calibration.run import calibrate
from qconvert.calibration.settings import Settings
from qconvert.dataset.reader import open_dataset
from qconvert.errors import CalibrationError, ModelFormatError, UsageError
from qconvert.graph import input_shapes
from qconvert.plan import ActivationSpec, Plan, PlannedLayer
from qconvert.progress import Quiet
from qconvert.quant import Encodings, symmetric
from qconvert.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qconvert.calibration.settings import Method
    from qconvert.dataset.reader import Dataset
    from qconvert.quant import F32

METHODS: tuple[Method, ...] = (
    "minmax",
    "moving-average",
    "percentile",
    "kl",
    "mse",
    "aciq",
    "admm",
)
GRAPH = """net (float[1, 3, 8, 8] data) => (float[1, 4, 4, 4] out) {
    conv1 = Conv<pads = [1, 1, 1, 1]>(data, w1)
    relu1 = Relu(conv1)
    conv2 = Conv<group = 2, strides = [2, 2], pads = [1, 1, 1, 1]>(relu1, w2)
    low = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(conv1)
    out = Add(conv2, low)
}"""
LAYERS = (
    PlannedLayer("conv1", "Conv", "data", "conv1", "w1", 0),
    PlannedLayer("conv2", "Conv", "relu1", "conv2", "w2", 0, groups=2),
)
PLAN = Plan(
    "any", LAYERS, {name: ActivationSpec() for name in ("data", "relu1", "conv1", "conv2", "low")}
)


def network(**weights: F32) -> ir.Model:
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    text = f'<ir_version: 10, opset_import: ["" : 21]>\n{GRAPH}'
    model = ir.from_onnx_text(text, [ir.tensor(w, name=name) for name, w in weights.items()])
    common.ShapeInferencePass()(model)
    return model


@pytest.fixture
def weights(rng: np.random.Generator) -> dict[str, F32]:
    return {
        "w1": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(size=(4, 2, 3, 3)).astype(np.float32),
    }


@pytest.fixture
def data(rng: np.random.Generator, tmp_path: Path) -> Callable[[F32 | None], Dataset]:
    """A dataset of the given inputs, or of eight normal ones."""

    def make(inputs: F32 | None = None) -> Dataset:
        if inputs is None:
            inputs = rng.normal(size=(8, 3, 8, 8)).astype(np.float32)
        np.save(tmp_path / "x.npy", inputs)
        return open_dataset(tmp_path / "x.npy", {"data": (1, 3, 8, 8)}, preprocessing=None)

    return make


def found(
    model: ir.Model,
    plan: Plan,
    data: Dataset,
    method: Method = "minmax",
    *,
    report: Report | None = None,
    threads: int = 1,
) -> Encodings:
    settings = Settings(method=method, threads=threads)
    return calibrate(model, plan, data, settings, report or Report(), Quiet()).encodings


def with_specs(spec: ActivationSpec, plan: Plan = PLAN) -> Plan:
    return replace(plan, activations=dict.fromkeys(plan.activations, spec))


def text_of(encodings: Encodings) -> str:
    return repr((encodings.activations, encodings.weights))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8, 16])
@pytest.mark.parametrize("kind", ["symmetric", "asymmetric", "unsigned"])
@pytest.mark.parametrize("method", METHODS)
def test_every_strategy_gives_usable_scales_at_every_width(
    method: Method, kind: str, bits: int, weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    spec = ActivationSpec(bits, asymmetric=kind == "asymmetric", unsigned=kind != "symmetric")
    layers = tuple(replace(layer, weight_bits=bits) for layer in LAYERS)
    plan = replace(with_specs(spec), layers=layers)
    inputs = data()
    ranges = found(network(**weights), plan, inputs)

    encodings = found(network(**weights), plan, inputs, method)

    assert list(encodings.activations) == list(PLAN.activations)
    for name, params in encodings.activations.items():
        assert params.bits == bits
        # A least-squares step may lie a little beyond the largest value, never far.
        assert params.scale <= 1.5 * ranges.activations[name].scale
    for params in encodings.weights.values():
        assert params.axis == 0
        assert params.scale.shape == (4,)
        assert params.bits == bits


def test_minmax_is_the_range_of_the_network_on_the_data(
    weights: dict[str, F32], data: Callable[..., Dataset], rng: np.random.Generator
) -> None:
    inputs = rng.normal(size=(5, 3, 8, 8)).astype(np.float32)

    encodings = found(network(**weights), PLAN, data(inputs))

    assert encodings.activations["data"].scale == np.float32(np.abs(inputs).max() / 127)
    np.testing.assert_array_equal(
        encodings.weights["w1"].scale, symmetric(np.abs(weights["w1"]).max((1, 2, 3)), axis=0).scale
    )


def test_nothing_below_zero_needs_no_negative_codes(
    weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    plan = with_specs(ActivationSpec(unsigned=True))

    encodings = found(network(**weights), plan, data())

    assert encodings.activations["relu1"].zero_point == 0
    assert encodings.activations["conv1"].zero_point == 128


@pytest.mark.parametrize("method", METHODS)
def test_tied_activations_share_one_scale(
    method: Method, weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    plan = replace(PLAN, ties=(("conv2", "low"), ("low", "conv1")))

    encodings = found(network(**weights), plan, data(), method)

    group = [encodings.activations[name] for name in ("conv1", "conv2", "low")]
    assert len({float(params.scale) for params in group}) == 1
    assert encodings.activations["data"].scale != group[0].scale


def test_a_fixed_scale_is_taken_as_it_is_and_ties_follow(
    weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    fixed = dict(PLAN.activations) | {"data": ActivationSpec(fixed_scale=1 / 128)}
    plan = replace(PLAN, activations=fixed, ties=(("conv1", "data"),))

    encodings = found(network(**weights), plan, data())

    assert encodings.activations["data"].scale == np.float32(1 / 128)
    assert encodings.activations["conv1"].scale == np.float32(1 / 128)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 0.0, 1e-60])
def test_a_useless_fixed_scale_is_refused(
    scale: float, weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    plan = with_specs(ActivationSpec(fixed_scale=scale))

    with pytest.raises(CalibrationError, match="fixed scale of 'data'"):
        found(network(**weights), plan, data())


def test_fixed_scales_that_contradict_a_tie_are_refused(
    weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    fixed = {"data": ActivationSpec(fixed_scale=1.0), "conv1": ActivationSpec(fixed_scale=2.0)}
    plan = replace(PLAN, activations=dict(PLAN.activations) | fixed, ties=(("data", "conv1"),))

    with pytest.raises(CalibrationError, match="two fixed scales"):
        found(network(**weights), plan, data())


def test_granularity_decides_which_weights_share_a_scale(
    weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    layers = (
        replace(LAYERS[0], granularity="tensor"),
        replace(LAYERS[1], granularity="group"),
    )

    encodings = found(network(**weights), replace(PLAN, layers=layers), data())

    assert encodings.weights["w1"].axis is None
    assert encodings.weights["w1"].scale == np.float32(np.abs(weights["w1"]).max() / 127)
    scales = encodings.weights["w2"].scale
    assert scales[0] == scales[1] != scales[2] == scales[3]


@pytest.mark.parametrize("method", METHODS)
def test_dead_channels_and_activations_get_a_finite_scale_and_a_warning(
    method: Method, weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    weights["w1"] = -np.abs(weights["w1"])
    weights["w2"][1] = 0.0
    report = Report()

    # Positive inputs through negative weights: relu1 is 0 throughout.
    inputs = data(np.random.default_rng(0).random((4, 3, 8, 8), np.float32))
    encodings = found(network(**weights), PLAN, inputs, method, report=report)

    assert encodings.activations["relu1"].scale == 1.0
    assert np.isfinite(encodings.weights["w2"].scale).all()
    said = "\n".join(report.warnings)
    assert "'relu1', which feeds 'conv2'" in said
    assert "layer 'conv2': 1 of 4 output channels" in said


def test_a_layer_of_zeros_is_named(weights: dict[str, F32], data: Callable[..., Dataset]) -> None:
    report = Report()

    encodings = found(network(**weights | {"w2": 0 * weights["w2"]}), PLAN, data(), report=report)

    assert (encodings.weights["w2"].scale == 1.0).all()
    assert "weights of layer 'conv2' are all 0" in "\n".join(report.warnings)


@pytest.mark.parametrize("method", METHODS)
def test_an_activation_that_is_not_finite_names_sample_and_tensor(
    method: Method, weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    inputs = np.ones((3, 3, 8, 8), np.float32)
    inputs[1] = 3e38

    with pytest.raises(CalibrationError) as error:
        found(network(**weights), PLAN, data(inputs), method)

    assert "[1]'" in error.value.what
    assert error.value.at.startswith("tensor '")


def test_a_weight_that_is_not_finite_names_the_layer(
    weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    weights["w2"][0, 0, 0, 0] = np.nan

    with pytest.raises(ModelFormatError, match="weights of 'conv2'"):
        found(network(**weights), PLAN, data())


def test_no_data_is_an_error(weights: dict[str, F32], data: Callable[..., Dataset]) -> None:
    with pytest.raises(CalibrationError, match="no calibration data"):
        found(network(**weights), PLAN, data().subset([]))


@pytest.mark.parametrize("method", METHODS)
def test_the_same_data_give_the_same_bytes(
    method: Method, weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    inputs = data()

    runs = {
        text_of(found(network(**weights), PLAN, inputs, method, threads=threads))
        for threads in (1, 1, 2)
    }

    assert len(runs) == 1


@pytest.mark.parametrize("method", [name for name in METHODS if name != "moving-average"])
def test_the_order_of_samples_does_not_matter(
    method: Method, weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    inputs = data()

    forth = found(network(**weights), PLAN, inputs, method)
    back = found(network(**weights), PLAN, inputs.subset(range(7, -1, -1)), method)

    assert text_of(forth) == text_of(back)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_clipped_after_the_last_quantized_layer(
    method: Method, weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    plan = replace(PLAN, activations=dict(PLAN.activations) | {"out": ActivationSpec()})
    inputs = data()
    whole = found(network(**weights), plan, inputs)

    encodings = found(network(**weights), plan, inputs, method)

    for name in ("conv2", "low", "out"):
        assert encodings.activations[name].scale == whole.activations[name].scale
    if method != "admm":
        assert encodings.activations["relu1"].scale <= whole.activations["relu1"].scale


def test_a_constant_activation_is_observed_too(
    weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    plan = replace(PLAN, activations=dict(PLAN.activations) | {"w2": ActivationSpec()})

    encodings = found(network(**weights), plan, data(), "kl")

    assert encodings.activations["w2"].threshold <= np.abs(weights["w2"]).max()


def test_the_model_is_left_alone(weights: dict[str, F32], data: Callable[..., Dataset]) -> None:
    model = network(**weights)
    before = ir.to_proto(model).SerializeToString(deterministic=True)

    found(model, PLAN, data(), method="kl")

    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert input_shapes(model) == {"data": (1, 3, 8, 8)}


def test_rows_tell_each_layers_scales(
    weights: dict[str, F32], data: Callable[..., Dataset]
) -> None:
    settings = Settings(method="minmax", threads=1)

    result = calibrate(network(**weights), PLAN, data(), settings, Report(), Quiet())

    assert [row.name for row in result.layers] == ["conv1", "conv2"]
    row, params = result.layers[0], result.encodings.activations["data"]
    assert row.input_scale == params.scale
    assert row.threshold == params.threshold
    scales = result.encodings.weights["w1"].scale
    assert row.weight_scale == (scales.min(), scales.max())


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="out of its range"):
        Settings(percentile=20)


@pytest.mark.parametrize("keep", [0, 2500, 5000, 13000, 16000, 1 << 20])
def test_kept_activations_change_nothing(
    weights: dict[str, F32],
    data: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
    keep: int,
) -> None:
    model, inputs = network(**weights), data()
    expected = text_of(found(model, PLAN, inputs, "kl"))

    monkeypatch.setattr("qconvert.calibration.activations._KEEP", keep)

    assert text_of(found(model, PLAN, inputs, "kl")) == expected

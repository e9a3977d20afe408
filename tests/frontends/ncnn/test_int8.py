"""Layers stored as int8: the integers of ncnn against the Q/DQ network read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.formats.ncnn_param import Layer, Network, Param
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from tests.frontends.ncnn.oracle import in_ncnn, load, random_inputs, raw, single, tagged

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.formats.ncnn_bin import Buffer

BOTTOM = 30.0


def codes(rng: np.random.Generator, count: int) -> npt.NDArray[np.int8]:
    return rng.integers(-127, 128, count).astype(np.int8)


def assert_close(network: Network, buffers: list[Buffer], *, step: float) -> None:
    """Equal but for a rounding here and there: within one step of the output, rarely."""
    feed = random_inputs(network)
    expected = in_ncnn(network, buffers, feed, packing=False)
    with OnnxRuntime(load(network, buffers), threads=1) as runtime:
        given = runtime.run({name: array[None] for name, array in feed.items()})
    for name, right in expected.items():
        error = np.abs(given[name][0] - right)
        assert error.max() <= step * 1.001
        assert (error > 1e-4 * np.abs(right).max()).mean() < 0.02


@pytest.mark.parametrize("bias", [0, 1])
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution(bias: int, kernel: int, rng: np.random.Generator) -> None:
    size = 8 * 6 * kernel**2
    params: dict[int, Param] = {0: 8, 1: kernel, 4: kernel // 2, 5: bias, 6: size, 8: 2, 9: 1}
    buffers = [
        tagged(codes(rng, size)),
        *([raw(rng.normal(size=8))] if bias else []),
        raw(rng.uniform(50, 500, 8)),
        raw([BOTTOM]),
    ]

    assert_close(single("Convolution", params, ((6, 7, 5),)), buffers, step=127 / 50 / BOTTOM)


@pytest.mark.parametrize(("term", "scales"), [(1, 3), (2, 1)], ids=["per_group", "one"])
@pytest.mark.parametrize("outputs", [3, 9], ids=["depthwise", "multiplied"])
def test_convolution_depthwise(
    term: int, scales: int, outputs: int, rng: np.random.Generator
) -> None:
    size = outputs * 9
    params: dict[int, Param] = {0: outputs, 1: 3, 4: 1, 6: size, 7: 3, 8: term}
    buffers = [tagged(codes(rng, size)), raw(rng.uniform(50, 500, scales)), raw([BOTTOM])]

    assert_close(
        single("ConvolutionDepthWise", params, ((3, 7, 5),)), buffers, step=127 / 50 / BOTTOM
    )


def test_inner_product(rng: np.random.Generator) -> None:
    params: dict[int, Param] = {0: 7, 1: 1, 2: 7 * 60, 8: 2}
    buffers = [
        tagged(codes(rng, 420)),
        raw(rng.normal(size=7)),
        raw(rng.uniform(50, 500, 7)),
        raw([BOTTOM]),
    ]

    assert_close(single("InnerProduct", params, ((3, 4, 5),)), buffers, step=127 / 50 / BOTTOM)


def test_inner_product_of_rows(rng: np.random.Generator) -> None:
    params: dict[int, Param] = {0: 7, 2: 35, 8: 2}
    buffers = [tagged(codes(rng, 35)), raw(rng.uniform(50, 500, 7)), raw([BOTTOM])]

    assert_close(single("InnerProduct", params, ((6, 5),)), buffers, step=127 / 50 / BOTTOM)


def test_float_weights_are_quantized_as_ncnn_does_at_load(rng: np.random.Generator) -> None:
    weight = rng.normal(size=48).astype(np.float32)
    params: dict[int, Param] = {0: 8, 1: 1, 6: 48, 8: 2}
    buffers = [tagged(weight), raw(np.full(8, 40.0)), raw([BOTTOM])]

    assert_close(single("Convolution", params, ((6, 7, 5),)), buffers, step=127 / 40 / BOTTOM)


def test_a_border_value_is_put_on_the_codes(rng: np.random.Generator) -> None:
    params: dict[int, Param] = {0: 4, 1: 3, 4: 1, 6: 108, 8: 2, 18: 9.0}
    buffers = [tagged(codes(rng, 108)), raw(rng.uniform(50, 500, 4)), raw([BOTTOM])]

    assert_close(single("Convolution", params, ((3, 7, 5),)), buffers, step=127 / 50 / BOTTOM)


def test_a_dead_channel_gives_its_bias(rng: np.random.Generator) -> None:
    params: dict[int, Param] = {0: 2, 1: 1, 5: 1, 6: 6, 8: 2}
    buffers = [tagged(codes(rng, 6)), raw([0.5, 0.25]), raw([0.0, 100.0]), raw([BOTTOM])]

    assert_close(single("Convolution", params, ((3, 4, 4),)), buffers, step=127 / 100 / BOTTOM)


def chain(top: float, second: float) -> tuple[Network, list[Buffer]]:
    """Two convolutions, the first of which hands codes to the second."""
    rng = np.random.default_rng(7)
    layers = (
        Layer("Input", "in", (), ("x",), {0: 7, 1: 6, 2: 4}),
        Layer("Convolution", "a", ("x",), ("m",), {0: 5, 1: 3, 6: 180, 8: 102, 9: 1}),
        Layer("Convolution", "b", ("m",), ("y",), {0: 3, 1: 1, 6: 15, 8: 2}),
    )
    buffers = [
        tagged(codes(rng, 180)),
        raw(rng.uniform(400, 500, 5)),
        raw([BOTTOM]),
        raw([top]),
        tagged(codes(rng, 15)),
        raw(rng.uniform(100, 500, 3)),
        raw([second]),
    ]
    return Network(layers), buffers


@pytest.mark.parametrize("second", [20.0, 10.0], ids=["same_scale", "other_scale"])
def test_requantized_codes_reach_the_next_layer(second: float) -> None:
    network, buffers = chain(20.0, second)

    assert_close(network, buffers, step=127 / 100 / second)


def test_codes_read_at_another_scale_are_reported() -> None:
    report = Report()

    load(*chain(20.0, 20.0), report)
    assert not report.warnings
    load(*chain(20.0, 10.0), report)
    assert "reads 'm' at scale 10, and it was rounded at 20" in report.warnings[0]


def test_the_nodes_are_those_of_a_quantized_network(rng: np.random.Generator) -> None:
    params: dict[int, Param] = {0: 4, 1: 1, 6: 12, 8: 2}
    weight = codes(rng, 12)
    scales = rng.uniform(50, 500, 4).astype(np.float32)

    model = load(
        single("Convolution", params, ((3, 4, 4),)), [tagged(weight), raw(scales), raw([BOTTOM])]
    )

    kinds = [node.op_type for node in model.graph]
    assert kinds == ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv"]
    conv = list(model.graph)[-1]
    assert conv.name == "layer"
    producer = conv.inputs[1].producer() if conv.inputs[1] is not None else None
    assert producer is not None
    stored, scale = producer.inputs[0], producer.inputs[1]
    assert stored is not None
    assert scale is not None
    assert stored.const_value is not None
    assert scale.const_value is not None
    np.testing.assert_array_equal(stored.const_value.numpy().ravel(), weight)
    np.testing.assert_allclose(scale.const_value.numpy(), 1 / scales, rtol=1e-6)

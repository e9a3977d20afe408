"""Layers that need inputs or expectations of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.formats.ncnn_param import Layer, Network
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.verification.detections import align
from tests.frontends.ncnn.oracle import (
    assert_same,
    in_ncnn,
    load,
    raw,
    single,
    tagged,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.formats.ncnn_bin import Buffer
    from qconvert.formats.ncnn_param import Param


def test_arg_max_lists_places_and_values() -> None:
    # The ncnn package is built without this layer: the expectation is that of argmax.cpp.
    x = np.asarray([3, 9, 1, 7, 5], np.float32)

    with OnnxRuntime(load(single("ArgMax", {0: 1, 1: 3}, ((5,),))), threads=1) as runtime:
        np.testing.assert_array_equal(runtime.run({"x0": x[None]})["y0"], [[[9, 7, 5], [1, 3, 4]]])
    with OnnxRuntime(load(single("ArgMax", {1: 2}, ((5,),))), threads=1) as runtime:
        np.testing.assert_array_equal(runtime.run({"x0": x[None]})["y0"], [[[1, 3]]])


PRIORS: dict[int, Param] = {
    0: (30.0,),
    1: (60.0,),
    2: (2.0, 3.0),
    7: 1,
    8: 1,
    9: -233,
    10: -233,
    13: 0.5,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {8: 0, 11: 16.0, 12: 20.0},
        {7: 0, 1: (), 9: 300, 10: 200},
        {0: (30.0, 40.0), 1: (), 3: 0.3},
    ],
    ids=["image", "steps", "size", "two_sizes"],
)
def test_prior_boxes(changes: Mapping[int, Param]) -> None:
    params = {key: value for key, value in (PRIORS | dict(changes)).items() if value != ()}

    assert_same(single("PriorBox", params, ((4, 3, 5), (3, 48, 80))))


@pytest.mark.parametrize("seed", range(4))
def test_detection_output_finds_the_same_boxes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0.1, 0.5, (30, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.1, 0.4, (30, 2))], axis=1)
    scores = np.exp(rng.normal(0, 2, (30, 3)))
    inputs = {
        "x0": rng.normal(size=120).astype(np.float32),
        "x1": (scores / scores.sum(1, keepdims=True)).ravel().astype(np.float32),
        "x2": np.stack([boxes.ravel(), np.tile([0.1, 0.1, 0.2, 0.2], 30)]).astype(np.float32),
    }
    params: dict[int, Param] = {0: 3, 1: 0.45, 2: 20, 3: 10, 4: 0.3}
    network = single("DetectionOutput", params, ((120,), (90,), (2, 120)))

    expected = in_ncnn(network, [], inputs)["y0"]
    with OnnxRuntime(load(network), threads=1) as runtime:
        given = runtime.run({name: array[None] for name, array in inputs.items()})["y0"]

    assert given.shape[:2] == (1, 1)
    wanted, found = align(expected, given)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert len(wanted) > 3


def test_a_constant_blob() -> None:
    layers = (
        Layer("Input", "in", (), ("x",), {0: 5, 1: 6, 2: 4}),
        Layer("MemoryData", "data", (), ("c",), {0: 5, 1: 6, 2: 1}),
        Layer("MemoryData", "half", (), ("h",), {0: 4, 21: 0}),
        Layer("BinaryOp", "add", ("x", "c"), ("s",)),
        Layer("BinaryOp", "mul", ("s", "h"), ("y",), {0: 2}),
    )
    rng = np.random.default_rng(2)
    half = tagged(rng.normal(size=4).astype(np.float16))

    assert_same(Network(layers), [raw(rng.normal(size=30)), half])


@pytest.mark.parametrize("bias", [0, 1])
def test_embed_picks_rows(bias: int) -> None:
    rng = np.random.default_rng(2)
    network = single("Embed", {0: 3, 1: 10, 2: bias, 3: 30}, ((4,),))
    made = [tagged(rng.normal(size=30).astype(np.float32)), *([raw(rng.normal(size=3))] * bias)]
    words = np.asarray([7, 0, 12, -1], np.int32)

    # ncnn's blob holds the bits of int32.
    expected = in_ncnn(network, made, {"x0": words.view(np.float32)})["y0"]
    with OnnxRuntime(load(network, made), threads=1) as runtime:
        given = runtime.run({"x0": words.astype(np.float32)[None]})["y0"]

    np.testing.assert_allclose(given[0], expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["Gemm", "LSTM", "MultiHeadAttention"])
def test_int8_weights_of_dynamic_layers_are_read_in_float_with_a_warning(kind: str) -> None:
    rng = np.random.default_rng(2)

    def codes(count: int) -> Buffer:
        return tagged(rng.integers(-127, 128, count).astype(np.int8))

    def scales(count: int) -> Buffer:
        return raw(rng.uniform(100, 200, count))

    rows: dict[str, tuple[dict[int, Param], tuple[int, ...], list[Buffer]]] = {
        "Gemm": ({3: 1, 5: 1, 6: 1, 8: 3, 9: 5, 10: -1, 18: 2}, (6, 5), [codes(15), scales(1)]),
        "LSTM": (
            {0: 3, 1: 60, 8: 2},
            (6, 5),
            [codes(60), tagged(np.zeros(12, np.float32)), codes(36), scales(12), scales(12)],
        ),
        "MultiHeadAttention": (
            {0: 4, 1: 2, 2: 16, 18: 2},
            (3, 4),
            [*[codes(16), raw(np.zeros(4))] * 4, scales(4), scales(4), scales(4), scales(1)],
        ),
    }
    params, shape, made = rows[kind]
    network = single(kind, params, (shape,))
    report = Report()
    load(network, made, report)

    assert "keeps them in float" in report.warnings[0]
    assert_same(network, made, tolerance=0.05)

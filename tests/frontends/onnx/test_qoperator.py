"""QOperator models become Q/DQ models with the same codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.frontends.onnx.onnx_files import load, run, write

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

HEAD = """g (float[1, 4, 6, 6] x) => (float[1, {channels}, {size}, {size}] y) {{
    xs = Constant<value = float {{0.02}}>()
    xz = Constant<value = uint8 {{120}}>()
    ys = Constant<value = float {{0.05}}>()
    yz = Constant<value = uint8 {{100}}>()
    q = QuantizeLinear(x, xs, xz)
    {body}
    y = DequantizeLinear(r, ys, yz)
}}"""

BODIES = {
    "add": "r = com.microsoft.QLinearAdd(q, xs, xz, q, xs, xz, ys, yz)",
    "mul": "r = com.microsoft.QLinearMul(q, xs, xz, q, xs, xz, ys, yz)",
    "sigmoid": "r = com.microsoft.QLinearSigmoid(q, xs, xz, ys, yz)",
    "leaky_relu": "r = com.microsoft.QLinearLeakyRelu<alpha = 0.1>(q, xs, xz, ys, yz)",
    "average_pool": (
        "r = com.microsoft.QLinearAveragePool<kernel_shape = [2, 2], strides = [2, 2]>"
        "(q, xs, xz, ys, yz)"
    ),
    "global_average_pool": "r = com.microsoft.QLinearGlobalAveragePool(q, xs, xz, ys, yz)",
    "concat": "r = com.microsoft.QLinearConcat<axis = 1>(ys, yz, q, xs, xz, q, xs, xz)",
}
SHAPES = {"average_pool": (4, 3), "global_average_pool": (4, 1), "concat": (8, 6)}


def same_codes(actual: npt.NDArray[Any], expected: npt.NDArray[Any], step: float) -> None:
    """Equal but for rare ties, which float and integer arithmetic may break differently."""
    steps = np.rint((actual - expected) / step)
    assert np.abs(steps).max() <= 1
    assert (steps != 0).mean() < 0.02


@pytest.mark.parametrize("name", BODIES)
def test_an_integer_operator_gives_its_own_codes(
    name: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    channels, size = SHAPES.get(name, (4, 6))
    text = HEAD.format(body=BODIES[name], channels=channels, size=size)
    path = write(tmp_path, text, contrib=True)
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)

    model = load(path)

    assert not [node for node in model.graph if node.op_type.startswith("QLinear")]
    same_codes(run(model, x)[0], run(path, x)[0], 0.05)


def conv(folder: Path, rng: np.random.Generator) -> Path:
    body = "r = QLinearConv<pads = [1, 1, 1, 1]>(q, xs, xz, w, ws, wz, ys, yz, b)"
    text = HEAD.format(body=body, channels=8, size=6)
    weights: dict[str, np.ndarray] = {
        "w": rng.integers(-127, 128, size=(8, 4, 3, 3)).astype(np.int8),
        "ws": rng.uniform(0.001, 0.01, size=8).astype(np.float32),
        "wz": np.zeros(8, np.int8),
        "b": rng.integers(-2000, 2000, size=8).astype(np.int32),
    }
    return write(folder, text, weights)


def test_a_per_channel_convolution_gives_its_own_codes(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = conv(tmp_path, rng)
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)

    model = load(path)

    same_codes(run(model, x)[0], run(path, x)[0], 0.05)
    layer = next(node for node in model.graph if node.op_type == "Conv")
    assert all(value.producer().op_type == "DequantizeLinear" for value in layer.inputs)  # type: ignore[union-attr]  # all are made by nodes


def test_codes_and_scales_of_weights_stay_as_they_are(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    model = load(conv(tmp_path, rng))

    types = {str(v.name): str(v.dtype) for v in model.graph.initializers.values()}
    assert types["w"] == "INT8"
    assert types["b"] == "INT32"


def test_integer_products_that_float_holds_exactly_become_float(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    text = """g (float[1, 4, 6, 6] x) => (float[1, 8, 4, 4] y) {
        q, s, z = DynamicQuantizeLinear(x)
        i = ConvInteger(q, w, z)
        f = Cast<to = 1>(i)
        y = Mul(f, s)
    }"""
    weights: dict[str, np.ndarray] = {
        "w": rng.integers(-127, 128, size=(8, 4, 3, 3)).astype(np.int8)
    }
    path = write(tmp_path, text, weights)
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)

    model = load(path)

    assert "ConvInteger" not in [node.op_type for node in model.graph]
    np.testing.assert_allclose(run(model, x)[0], run(path, x)[0], rtol=1e-6)

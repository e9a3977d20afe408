from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.calibration.easyquant.columns import geometry

if TYPE_CHECKING:
    from tests.calibration.easyquant.conftest import Build


@dataclass(frozen=True)
class Layer:
    """One linear layer [n] from x to y, and the shape of its weight."""

    id: str
    body: str
    weight: tuple[int, ...]
    x: tuple[int, ...] = (1, 4, 7, 9)
    y: str = "float[N, M, K, L] y"


LAYERS = [
    Layer("conv", "y = Conv(x, w)", (6, 4, 3, 3)),
    Layer("pads_uneven", "y = Conv<pads = [1, 0, 2, 1], strides = [2, 1]>(x, w)", (6, 4, 3, 2)),
    Layer("dilated_groups", "y = Conv<group = 2, dilations = [2, 1]>(x, w)", (6, 2, 3, 3)),
    Layer("depthwise", "y = Conv<group = 4, pads = [1, 1, 1, 1]>(x, w)", (8, 1, 3, 3)),
    Layer("same_upper", 'y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w)', (3, 4, 4, 4)),
    Layer("same_lower", 'y = Conv<auto_pad = "SAME_LOWER", strides = [2, 2]>(x, w)', (3, 4, 4, 4)),
    Layer("one_axis", "y = Conv<pads = [2, 1]>(x, w)", (3, 4, 4), (1, 4, 9), "float[N, M, K] y"),
    Layer("deconv", "y = ConvTranspose<strides = [2, 3], pads = [1, 0, 0, 1]>(x, w)", (4, 3, 3, 4)),
    Layer(
        "deconv_groups",
        "y = ConvTranspose<group = 2, strides = [2, 2], dilations = [1, 2]>(x, w)",
        (4, 3, 3, 2),
    ),
    Layer(
        "deconv_output_padding",
        "y = ConvTranspose<strides = [2, 2], output_padding = [1, 0]>(x, w)",
        (4, 2, 3, 3),
    ),
    Layer(
        "deconv_same",
        'y = ConvTranspose<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w)',
        (4, 2, 3, 3),
    ),
    Layer(
        "deconv_output_shape",
        "y = ConvTranspose<output_shape = [14, 17], strides = [2, 2]>(x, w)",
        (4, 2, 4, 3),
    ),
    Layer("gemm", "y = Gemm(x, w)", (5, 3), (1, 5), "float[N, M] y"),
    Layer("gemm_rows", "y = Gemm<transB = 1>(x, w)", (3, 5), (4, 5), "float[N, M] y"),
    Layer("matmul", "y = MatMul(x, w)", (5, 3), (1, 2, 4, 5)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.id)
def test_weight_times_columns_is_the_output(
    layer: Layer, case: Build, rng: np.random.Generator
) -> None:
    weight = rng.normal(size=layer.weight).astype(np.float32)
    built = case(f"[n] {layer.body}", weights={"w": weight}, x=layer.x, y=layer.y, count=1)
    (expected,) = built.outputs()

    shape = geometry(next(iter(built.model.graph)))

    assert shape is not None
    at = np.sort(rng.permutation(shape.positions)[: max(1, shape.positions // 2)])
    columns = shape.columns(built.samples[0].inputs["x"], at)
    matrix = shape.matrix(weight)
    product = np.matmul(matrix, columns).reshape(-1, len(at))
    np.testing.assert_allclose(product, shape.outputs(expected, at), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(shape.tensor(matrix), weight)

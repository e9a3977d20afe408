from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.passes.signs import never_negative

if TYPE_CHECKING:
    from tests.passes.conftest import Build


@pytest.mark.parametrize(
    ("body", "positive"),
    [
        ("y = Relu(x)", True),
        ("y = Clip(x, zero, six)", True),
        ("y = Clip(x, minus, six)", False),
        ("y = LeakyRelu(x)", False),
        ("a = Relu(x) y = MaxPool<kernel_shape = [2, 2]>(a)", True),
        ("a = Relu(x) b = Sigmoid(x) c = Add(a, b) y = Concat<axis = 1>(c, a)", True),
        ("a = Relu(x) y = Concat<axis = 1>(x, a)", False),
        ("a = Relu(x) y = Mul(a, minus)", False),
        ("a = Relu(x) y = Mul(a, six)", True),
        ("a = Relu(x) y = Sub(a, six)", False),
        ("a = Relu(x) y = Reshape(a, shape)", True),
        ("a = Relu(x) q = QuantizeLinear(a, six, z) y = DequantizeLinear(q, six, z)", True),
        ("q = QuantizeLinear(x, six, z) y = DequantizeLinear(q, six, z)", False),
        ("y = DequantizeLinear(w, six)", False),
    ],
)
def test_what_cannot_be_negative_is_known_to_be_so(body: str, positive: bool, graph: Build) -> None:
    model = graph(
        f"net (float[1, 2, 4, 4] x) => (float[] y) {{ {body} }}",
        zero=np.float32(0),
        six=np.float32(6),
        minus=np.float32(-1),
        z=np.int8(3),
        w=np.asarray([[1, 2]], np.int8),
        shape=np.asarray([1, -1], np.int64),
    )

    assert ("y" in never_negative(model.graph)) == positive

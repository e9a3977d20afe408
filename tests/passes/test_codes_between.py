"""Operators that quantizers leave out or put on codes come back as float ones between pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.passes.order import optimize
from qconvert.passes.read_qdq import without_qdq
from qconvert.report import Report
from tests.passes.reading import kinds

if TYPE_CHECKING:
    from tests.passes.conftest import Build, Run


def test_operators_on_codes_become_float_ones_between_pairs(
    graph: Build, run: Run, rng: np.random.Generator
) -> None:
    model = graph(
        """
        net (float[1, 4, 6, 6] x) => (float[1, 72] y) {
          q = QuantizeLinear (x, s, z)
          [pool] p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (q)
          [cat] c = Concat <axis = 1> (p, p)
          [flat] f = Flatten (c)
          y = DequantizeLinear (f, s, z)
        }
        """,
        s=np.float32(0.05),
        z=np.uint8(100),
    )
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    copy = model.clone()

    optimize(copy, Report())

    assert kinds(copy) == ["QuantizeLinear", "DequantizeLinear", "MaxPool", "Concat", "Flatten"]
    # The original is still what it was, and valid.
    np.testing.assert_array_equal(run(copy, {"x": x})["y"], run(model, {"x": x})["y"])


@pytest.mark.parametrize(("step", "operator"), [(0.03, "Relu"), (6 / 255, "Clip")])
def test_a_relu_that_a_grid_stands_for_is_written_out(
    step: float, operator: str, graph: Build, run: Run, rng: np.random.Generator
) -> None:
    body = """
        net (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y, float[1, 4, 6, 6] u) {
          q = QuantizeLinear (x, s, z)
          d = DequantizeLinear (q, s, z)
          y = Sigmoid (d)
          r = QuantizeLinear (x, t, z)
          e = DequantizeLinear (r, t, z)
          u = Sigmoid (e)
        }
    """
    scales = {"s": np.float32(step), "t": np.float32(step * 0.7)}
    model = graph(body, **scales, z=np.int8(-128))
    x = (5 * rng.normal(size=(1, 4, 6, 6))).astype(np.float32)
    before = run(model, {"x": x})

    optimize(model, Report())

    after = run(model, {"x": x})
    np.testing.assert_array_equal(after["y"], before["y"])
    np.testing.assert_array_equal(after["u"], before["u"])
    plain = run(without_qdq(model), {"x": x})["y"]
    limit = 6 if operator == "Clip" else np.inf
    np.testing.assert_allclose(plain, 1 / (1 + np.exp(-np.clip(x, 0, limit))), rtol=1e-5)
    assert operator in kinds(without_qdq(model))

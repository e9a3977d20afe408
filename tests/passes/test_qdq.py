from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.qdq import code_bits, codes_of, pair_of

if TYPE_CHECKING:
    from tests.passes.conftest import Build

TEXT = """
net (float[1, 4, 5, 5] x) => (float[] y) {
  q = QuantizeLinear (x, s, z)
  c = Clip (q, low, high)
  y = DequantizeLinear (c, t, z)
}
"""


@pytest.mark.parametrize(
    ("kind", "zero", "low", "high", "bits"),
    [
        (np.int8, 0, -63, 63, 7),
        (np.int8, 0, -7, 7, 4),
        (np.int8, 0, -1, 1, 2),
        (np.uint8, 5, 0, 31, 5),
        (np.int8, 3, -8, 7, 4),
        (np.int8, 0, -63, 60, None),
        (np.int8, 0, -64, 63, None),
    ],
)
def test_width_of_an_activation_is_in_the_bounds_of_its_clip(
    kind: type[np.int8 | np.uint8],
    zero: int,
    low: int,
    high: int,
    bits: int | None,
    graph: Build,
) -> None:
    scale = np.float32(0.1)
    model = graph(TEXT, s=scale, t=scale, z=kind(zero), low=kind(low), high=kind(high))

    pair = pair_of(model.graph.outputs[0])

    assert (pair.params.bits if pair is not None else None) == bits


def test_nodes_on_different_grids_are_no_pair(graph: Build) -> None:
    model = graph(
        TEXT, s=np.float32(0.1), t=np.float32(0.2), z=np.int8(0), low=np.int8(-7), high=np.int8(7)
    )

    assert pair_of(model.graph.outputs[0]) is None


@pytest.mark.parametrize(
    ("scale", "axis", "found"),
    [
        (np.full(6, 0.5, np.float32), 0, 0),
        (np.full(6, 0.5, np.float32), -4, 0),
        (np.full(4, 0.5, np.float32), 1, 1),
        (np.asarray(0.5, np.float32), 1, None),
        (np.full(1, 0.5, np.float32), 1, None),
    ],
)
def test_scales_of_a_weight_run_along_their_axis(
    scale: np.ndarray, axis: int, found: int | None, graph: Build
) -> None:
    codes = np.arange(-12, 12, dtype=np.int8).reshape(6, 4, 1, 1)
    model = graph(
        f"""
        net (float[1, 4, 5, 5] x) => (float[] y) {{
          d = DequantizeLinear <axis = {axis}> (w, s)
          y = Conv (x, d)
        }}
        """,
        w=codes,
        s=scale,
    )
    layer = next(node for node in model.graph if node.op_type == "Conv")

    weight = codes_of(layer.inputs[1])

    assert weight is not None
    assert weight.params.axis == found
    assert weight.params.bits == 5
    np.testing.assert_array_equal(weight.real(), codes * np.float32(0.5))


@pytest.mark.parametrize(
    ("codes", "symmetric", "bits"),
    [([0], True, 2), ([-1, 1], True, 2), ([-7, 3], True, 4), ([127], True, 8), ([128], True, 9),
     ([0, 255], False, 8), ([-128, 3], False, 8), ([-2**15], False, 16)],
)  # fmt: skip
def test_width_of_codes_is_the_narrowest_that_holds_them(
    codes: list[int], symmetric: bool, bits: int
) -> None:
    assert code_bits(np.asarray(codes), symmetric=symmetric) == bits

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.calibration.refine.ranges import channel_ranges

if TYPE_CHECKING:
    from tests.calibration.easyquant.conftest import Build


def test_a_channel_is_as_large_as_its_norm_over_all_samples(
    case: Build, rng: np.random.Generator
) -> None:
    weight = rng.normal(size=(5, 3, 1, 1)).astype(np.float32)
    weight[2] = 0
    built = case("[a] h = Conv(x, w) [r] y = Relu(h)", weights={"w": weight})

    found = channel_ranges(built.model, ["x", "y"], built.samples, threads=1)  # type: ignore[arg-type] # a list will do

    for name, rows in (("x", [s.inputs["x"] for s in built.samples]), ("y", built.outputs())):
        values = np.concatenate(rows).astype(np.float64)
        expected = np.mean(np.abs(values) ** 8, axis=(0, 2, 3)) ** (1 / 8)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)

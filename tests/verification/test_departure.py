"""The first layer that computes something else is named, with what both sides have."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from qconvert.runtimes import Tap
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs
from qconvert.verification.departure import Stats, first_departure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qconvert.quant import F32

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) {
    [first] a = Conv(x, v)
    [second] b = Relu(a)
    [third] c = Conv(b, v)
    [fourth] y = Sigmoid(c)
}
"""


@pytest.fixture
def model(rng: np.random.Generator) -> ir.Model:
    # The reader of ONNX text warns of names it has not seen yet: initializers come after.
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    weight = ir.tensor(rng.normal(size=(4, 4, 1, 1)).astype(np.float32), name="v")
    model = ir.from_onnx_text(TEXT, [weight])
    common.ShapeInferencePass()(model)
    return model


class Broken:
    """onnxruntime in the place of a target's runtime; the values named come out shifted."""

    def __init__(self, model: ir.Model, wrong: Sequence[str], codes: Sequence[str] = ()) -> None:
        self.model, self.wrong, self.codes = model, wrong, codes

    @property
    def values(self) -> frozenset[str]:
        return frozenset("abcy")

    def tap(self, inputs: Mapping[str, F32], names: Sequence[str]) -> dict[str, Tap]:
        found = OnnxRuntime(with_outputs(self.model, names)).run(inputs)
        return {
            name: Tap(array + 9.0 * (name in self.wrong), codes=name in self.codes)
            for name, array in found.items()
        }


def test_the_first_value_that_differs_is_named_with_both_tensors(
    model: ir.Model, rng: np.random.Generator
) -> None:
    feed = {"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)}

    found = first_departure(model, Broken(model, ["c", "y"]), feed, 0.9999)

    assert found is not None
    assert (found.value, found.layer) == ("c", "layer 'third'")
    right = OnnxRuntime(with_outputs(model, ["c"])).run(feed)["c"]
    assert found.wanted.mean == pytest.approx(float(right.mean()), rel=1e-4)
    assert found.given.mean == pytest.approx(float(right.mean()) + 9.0, rel=1e-4)
    assert "layer 'third' is the first to leave it" in str(found)


def test_codes_are_passed_over_and_agreement_is_no_departure(
    model: ir.Model, rng: np.random.Generator
) -> None:
    feed = {"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)}

    assert first_departure(model, Broken(model, []), feed, 0.9999) is None
    assert first_departure(model, Broken(model, ["b"], codes=["b"]), feed, 0.9999) is None


def test_what_is_not_finite_has_no_figure() -> None:
    stats = Stats.of(np.array([1.0, np.nan, np.inf], np.float32))

    assert (stats.maximum, stats.std) == (None, None)
    assert "max not finite" in str(stats)

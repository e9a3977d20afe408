"""Rows of a table by an input of indices: Embed, in float and on integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.backends.ncnn.lower import lower
from qconvert.backends.ncnn.policy import POLICY
from qconvert.formats.ncnn_lint import lint
from qconvert.formats.ncnn_param import parse
from qconvert.graph import index_rows
from qconvert.passes.quantize_weights import quantize_weights
from qconvert.plan import Scheme
from qconvert.report import Report
from tests.backends.graphs import model_of
from tests.backends.ncnn.support import deploy, simulate

if TYPE_CHECKING:
    import onnx_ir as ir

LOOKUP = """
g (float[1, 9] ids) => (float[] y) {
  i = Cast<to = 7>(ids)
  [words] e = Gather(table, i)
  [kinds] k = Gather(other, i)
  y = Add(e, k)
}
"""


@pytest.fixture
def model(rng: np.random.Generator) -> ir.Model:
    tables = {"table": (30, 8), "other": (25, 8)}
    return model_of(
        LOOKUP, **{n: rng.normal(size=shape).astype(np.float32) for n, shape in tables.items()}
    )


@pytest.fixture
def feed(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"ids": rng.integers(0, 25, (1, 9)).astype(np.float32)}


def test_rows_are_found_exactly(model: ir.Model, feed: dict[str, np.ndarray]) -> None:
    artifact = deploy(model, feed)

    np.testing.assert_array_equal(artifact.outputs["y"], simulate(model, feed)["y"])
    assert artifact.kinds == ["Input", "Split", "Embed", "Embed", "BinaryOp"]
    assert artifact.written.extra["index_inputs"] == {"ids": 25}


def test_tables_of_integers_follow_the_simulation(
    model: ir.Model, feed: dict[str, np.ndarray]
) -> None:
    simulation = model.clone()
    assert quantize_weights(simulation, POLICY, Scheme(), Report())

    artifact = deploy(simulation, feed, float_model=model)
    old = deploy(simulation, feed, float_model=model, options={"ncnn_version": "20240820"})

    expected = simulate(simulation, feed)["y"]
    np.testing.assert_allclose(artifact.outputs["y"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(old.outputs["y"], expected, rtol=1e-5, atol=1e-6)
    assert [row.bits for row in artifact.written.layers if row.type == "Embed"] == [8, 8]
    assert [row.bits for row in old.written.layers if row.type == "Embed"] == [32, 32]
    assert lint(artifact.texts["model.table"], parse(artifact.texts["float.param"])) == []


@pytest.mark.parametrize(
    "body",
    [
        "i = Cast<to = 7>(x) y = Gather<axis = 1>(table, i)",
        "i = Cast<to = 7>(x) g = Gather(table, i) y = Add(g, x)",
        "r = Round(x) i = Cast<to = 7>(r) y = Gather(table, i)",
    ],
)
def test_other_indices_are_refused(body: str, rng: np.random.Generator) -> None:
    model = model_of(
        f"g (float[1, 8] x) => (float[] y) {{ {body} }}",
        table=rng.normal(size=(8, 8)).astype(np.float32),
    )

    problems = lower(model).problems

    assert index_rows(model.graph.inputs[0]) is None
    assert problems
    assert all(problem.why for problem in problems)

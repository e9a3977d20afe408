"""LSTM, GRU and RNN on integers: weights ahead of time, the scale of the input at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.backends.ncnn.policy import POLICY
from qconvert.formats.ncnn_lint import lint
from qconvert.formats.ncnn_param import parse
from qconvert.passes.quantize_weights import quantize_weights
from qconvert.plan import Scheme
from qconvert.report import Report
from tests.backends.graphs import model_of
from tests.backends.ncnn.support import cosine, deploy, simulate

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.quant import F32

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, WIDTH, HIDDEN = 12, 20, 16


@dataclass(frozen=True)
class Case:
    kind: str
    direction: str = "forward"

    @property
    def id(self) -> str:
        return f"{self.kind}_{self.direction}"

    def model(self, rng: np.random.Generator) -> ir.Model:
        dirs, rows = 1 + (self.direction == "bidirectional"), GATES[self.kind] * HIDDEN
        extra = ", linear_before_reset = 1" if self.kind == "GRU" else ""
        return model_of(
            f"""g (float[1, {STEPS}, {WIDTH}] x) => (float[] y) {{
              t = Transpose<perm = [1, 0, 2]>(x)
              [cell] y = {self.kind}<hidden_size = {HIDDEN}, direction = "{self.direction}"{extra}>
                (t, w, r, b)
            }}""",
            w=rng.normal(scale=0.3, size=(dirs, rows, WIDTH)).astype(np.float32),
            r=rng.normal(scale=0.3, size=(dirs, rows, HIDDEN)).astype(np.float32),
            b=rng.normal(scale=0.3, size=(dirs, 2 * rows)).astype(np.float32),
        )


CASES = [
    Case(kind, direction) for kind in GATES for direction in ("forward", "reverse", "bidirectional")
]


def feed(rng: np.random.Generator) -> dict[str, F32]:
    return {"x": rng.normal(size=(1, STEPS, WIDTH)).astype(np.float32)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_steps_on_integers_follow_the_simulation(case: Case, rng: np.random.Generator) -> None:
    model, given = case.model(rng), feed(rng)
    simulation = model.clone()
    assert quantize_weights(simulation, POLICY, Scheme(), Report())

    artifact = deploy(simulation, given, float_model=model)

    y = artifact.outputs["y"]
    assert cosine(y, simulate(simulation, given)["y"]) > 0.9995
    assert cosine(y, simulate(model, given)["y"]) > 0.9995
    assert not np.array_equal(y, deploy(model, given).outputs["y"])
    row = artifact.rows["cell"]
    assert (row.bits, row.input_scale) == (8, None)
    assert " 8=2" in artifact.line("cell")
    assert artifact.written.extra["oldest_ncnn"]["release"] == "20240820"
    table = artifact.texts["model.table"]
    assert lint(table, parse(artifact.texts["float.param"])) == []
    assert [line.split()[0] for line in table.splitlines()] == ["cell_param_0", "cell_param_1"]


@pytest.mark.parametrize("bits", [4, 7])
def test_narrow_weights_are_narrow_in_the_file(bits: int, rng: np.random.Generator) -> None:
    model, given = Case("LSTM").model(rng), feed(rng)
    simulation = model.clone()
    quantize_weights(simulation, POLICY, Scheme(weight_bits=bits), Report())

    artifact = deploy(simulation, given, float_model=model)

    assert artifact.rows["cell"].bits == bits
    assert cosine(artifact.outputs["y"], simulate(simulation, given)["y"]) > 0.9995


def test_a_release_without_integer_steps_runs_them_in_float(rng: np.random.Generator) -> None:
    model, given = Case("GRU", "bidirectional").model(rng), feed(rng)
    simulation = model.clone()
    quantize_weights(simulation, POLICY, Scheme(), Report())

    artifact = deploy(simulation, given, float_model=model, options={"ncnn_version": "20240410"})

    np.testing.assert_allclose(
        artifact.outputs["y"], simulate(simulation, given)["y"], rtol=1e-4, atol=1e-5
    )
    row = artifact.rows["cell"]
    assert row.bits == 32
    assert "since 20240820" in row.details["float"]


def test_a_layer_kept_in_float_stays_float(rng: np.random.Generator) -> None:
    model = Case("LSTM").model(rng)

    assert not quantize_weights(model, POLICY, Scheme(float_layers=("ce*",)), Report())
    assert "DequantizeLinear" not in {node.op_type for node in model.graph}

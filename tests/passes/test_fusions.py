"""Which activation functions run within the layer in front of them, and which not and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.passes.fusions import fusions
from qconvert.passes.planning import plan
from qconvert.plan import Fusion, OpRule, Policy, Scheme
from qconvert.report import Report

if TYPE_CHECKING:
    from tests.passes.conftest import Build

EIGHT = frozenset({8})
RULES = {
    "Conv": OpRule("Conv", "compute", "channel"),
    "Add": OpRule("Add", "aligned"),
    "Relu": OpRule("Relu", "inherits"),
}


def policy(*fused: Fusion) -> Policy:
    return Policy("test", RULES, EIGHT, EIGHT, integer_graph=True, fused=fused)


PLAIN = policy(Fusion(("Conv",), ("Relu",)))
WITH_ADD = policy(Fusion(("Conv",), ("Relu",), add=True))


@dataclass(frozen=True, slots=True)
class Case:
    """A graph, a target, and what is said of the activation in it."""

    id: str
    body: str
    policy: Policy
    pattern: str | None
    why_not: str | None = None


CASES = [
    Case("conv relu", "[c] a = Conv (x, w) [r] y = Relu (a)", PLAIN, "Conv + Relu"),
    Case(
        "unknown activation",
        "[c] a = Conv (x, w) [r] y = Tanh (a)",
        PLAIN,
        "Conv + Tanh",
        "test has no such operator",
    ),
    Case(
        "another reader",
        "[c] a = Conv (x, w) [r] b = Relu (a) y = Mul (a, b)",
        PLAIN,
        "Conv + Relu",
        "'a' has other readers",
    ),
    Case(
        "add between",
        "[c] a = Conv (x, w) [s] b = Add (a, x) [r] y = Relu (b)",
        WITH_ADD,
        "Conv + Add + Relu",
    ),
    Case(
        "add between, unknown",
        "[c] a = Conv (x, w) [s] b = Add (a, x) [r] y = Relu (b)",
        PLAIN,
        "Conv + Add + Relu",
        "test has no such operator",
    ),
    Case("no layer", "a = Add (x, x) [r] y = Relu (a)", WITH_ADD, None),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_activation_behind_a_layer_is_accounted_for(case: Case, graph: Build) -> None:
    model = graph(
        f"net (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) {{ {case.body} }}",
        w=np.ones((2, 2, 1, 1), np.float32),
    )

    found = [(each.pattern, each.why_not) for each in fusions(model, case.policy)]

    assert found == ([] if case.pattern is None else [(case.pattern, case.why_not)])


def test_nothing_is_quantized_within_a_fused_operator(graph: Build) -> None:
    model = graph(
        """net (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) {
          [c1] a = Conv (x, w)
          [r1] b = Relu (a)
          [c2] c = Conv (b, w)
          [s] d = Add (c, b)
          [r2] e = Relu (d)
          [c3] y = Conv (e, w)
        }""",
        w=np.ones((2, 2, 1, 1), np.float32),
    )

    fused = plan(model, WITH_ADD, Scheme(), Report())
    apart = plan(model, policy(), Scheme(), Report())

    assert list(fused.activations) == ["x", "b", "c", "e"]
    assert list(apart.activations) == ["x", "a", "b", "c", "d", "e"]


def test_a_fusion_reads_like_its_pattern() -> None:
    assert str(Fusion(("Conv", "Gemm"), ("Relu",), add=True)) == "Conv, Gemm + [Add +] Relu"
    assert str(Fusion(("*",), ("Relu", "Clip"))) == "any of these + Relu, Clip"

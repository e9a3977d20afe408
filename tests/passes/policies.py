"""Targets for tests."""

from __future__ import annotations

from qconvert.plan import OpRule, Policy

LAYERS = Policy(
    target="layers",
    rules={
        "Conv": OpRule("Conv", "compute", "group", ranks=frozenset({4})),
        "Gemm": OpRule("Gemm", "compute", "channel"),
    },
    weight_bits=frozenset(range(2, 9)),
    activation_bits=frozenset(range(2, 9)),
)
"""Runs layers with weights as integers, 2 to 8 bits wide, and nothing between them."""

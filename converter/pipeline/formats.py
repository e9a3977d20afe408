"""`formats`: what is read and written, operator by operator, straight from the tables."""

from __future__ import annotations

from typing import Any

from qconvert.backends import BACKENDS
from qconvert.frontends import FRONTENDS

__all__ = ["formats"]


def formats() -> dict[str, Any]:
    """Readers with their operators, and targets with what they write and quantize."""
    return {
        "reads": {
            row.name: {
                "files": [*row.model_suffixes, *row.weight_suffixes],
                "operators": sorted(row.operators()),
            }
            for row in FRONTENDS.values()
        },
        "writes": {
            row.name: {
                "operators": dict(sorted(row.operators().items())),
                "quantizes": {
                    rule.op_type: {"role": rule.role, "weights": rule.weights, "note": rule.note}
                    for rule in row.policy.rules.values()
                },
                "weight_bits": sorted(row.policy.weight_bits),
                "activation_bits": sorted(row.policy.activation_bits),
                "asymmetric": row.policy.asymmetric,
            }
            for row in BACKENDS.values()
        },
    }

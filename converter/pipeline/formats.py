"""`formats`: what is read and written, operator by operator, straight from the tables."""

from __future__ import annotations

from typing import Any

from qconvert.backends import BACKENDS
from qconvert.frontends import FRONTENDS

__all__ = ["as_markdown", "formats"]


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
                "fused": [str(fusion) for fusion in row.policy.fused],
                "weight_bits": sorted(row.policy.weight_bits),
                "activation_bits": sorted(row.policy.activation_bits),
                "asymmetric": row.policy.asymmetric,
            }
            for row in BACKENDS.values()
        },
    }


def as_markdown(listing: dict[str, Any]) -> str:
    """The page `docs/operators.md`: what `formats` gives, as tables."""
    lines = [
        "# Operators",
        "",
        "Printed by `qconvert formats --markdown` from the tables the program works with.",
        "",
        "## Read",
    ]
    for name, row in listing["reads"].items():
        files = ", ".join(f"`{suffix}`" for suffix in row["files"])
        operators = ", ".join(f"`{operator}`" for operator in row["operators"])
        lines += ["", f"### {name} ({files})", "", f"{len(row['operators'])}: {operators}"]
    lines += ["", "## Written"]
    for name, row in listing["writes"].items():
        operators = ", ".join(_pair(*pair) for pair in row["operators"].items())
        lines += ["", f"### {name}", "", f"{len(row['operators'])}: {operators}", ""]
        widths = [", ".join(map(str, row[f"{kind}_bits"])) for kind in ("weight", "activation")]
        zero = "with" if row["asymmetric"] else "without"
        sentence = f"weights of {widths[0]} bits, activations of {widths[1]} bits {zero} zero point"
        lines += [
            f"On integers ({sentence}):",
            "",
            "| operator | role | weight scales per | |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {operator} | {rule['role']} | {rule['weights'] or ''} | {rule['note']} |"
            for operator, rule in row["quantizes"].items()
        ]
        if row["fused"]:
            lines += ["", f"As one operator: {'; '.join(row['fused'])}."]
    return "\n".join(lines) + "\n"


def _pair(operator: str, word: str) -> str:
    """An ONNX operator and the target's word for it."""
    return f"`{operator}`" if operator == word else f"`{operator}` ({word})"

"""Which values share one scale.

An `aligned` operator adds or joins codes as they are, so its inputs and output count in one unit.
An operator that `inherits` hands codes on, so what goes in and what comes out do too. Both are
symmetric and transitive: the groups are the connected parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx_ir as ir

    from qconvert.plan import Policy

__all__ = ["tied"]


def tied(
    nodes: Iterable[ir.Node], policy: Policy, values: Sequence[ir.Value]
) -> tuple[tuple[str, ...], ...]:
    """Groups of two or more of `values` that share a scale, names in the order of `values`."""
    leader = {value: value for value in values}

    def find(value: ir.Value) -> ir.Value:
        while leader[value] is not value:
            leader[value] = leader[leader[value]]
            value = leader[value]
        return value

    for node in nodes:
        role = policy.rules[node.op_type].role
        if role == "compute":
            continue
        inputs = node.inputs if role == "aligned" else node.inputs[:1]
        members = [value for value in (*inputs, *node.outputs) if value in leader]
        for member in members[1:]:
            assert member is not None
            first = members[0]
            assert first is not None
            leader[find(member)] = find(first)
    groups: dict[ir.Value, list[str]] = {}
    for value in values:
        groups.setdefault(find(value), []).append(str(value.name))
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)

"""What a body of nodes sees while it is converted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["REFUSED", "Scope"]

REFUSED: Final = ir.Value(name="refused")
"""Stands for what a refused node would have made; whatever reads it is passed over."""


@dataclass(slots=True)
class Scope:
    """The surroundings of a body of nodes.

    Attributes:
        opsets: Domain → version its nodes are written for.
        env: Source value → new value; None for an optional input that is left out.
        attributes: Of the function call the body belongs to.
        names: Source value → name its new value is to have; others get `prefix` and their own.
        prefix: Of the names of inlined nodes and values.
        depth: How deep functions and branches are nested.
    """

    opsets: Mapping[str, int]
    env: dict[ir.Value, ir.Value | None] = field(default_factory=dict)
    attributes: Mapping[str, ir.Attr] = field(default_factory=dict)
    names: dict[ir.Value, str] = field(default_factory=dict)
    prefix: str = ""
    depth: int = 0

    def version(self, domain: str) -> int:
        """The opset version of a domain; the standard domain has two spellings."""
        if domain in {"", "ai.onnx"}:
            return int(self.opsets.get("", self.opsets.get("ai.onnx", 1)))
        return int(self.opsets.get(domain, 1))

    def name_of(self, value: ir.Value) -> str:
        """The name the new value of `value` is to have; empty when nobody reads it."""
        if not value.name or not (value.uses() or value.is_graph_output()):
            return ""
        return self.names.get(value) or self.prefix + str(value.name)

    def branch(self, prefix: str, outputs: Sequence[ir.Value], names: Sequence[str]) -> Scope:
        """The scope of a subgraph: it sees everything this one does."""
        wanted = {v: n for v, n in zip(outputs, names, strict=False) if n}
        return Scope(self.opsets, dict(self.env), self.attributes, wanted, prefix, self.depth + 1)

"""The table of operators: ONNX operator → the function that lowers it to ncnn layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context

__all__ = ["LOWERINGS", "Refusal", "lowers", "words"]

Lowering: TypeAlias = "Callable[[Context, ir.Node], None]"

LOWERINGS: Final[dict[tuple[str, str], Lowering]] = {}
_WORDS: Final[dict[str, str]] = {}


class Refusal(Exception):  # noqa: N818 - an answer, not an error: the driver collects it
    """ncnn cannot express a node; the text says which rule it breaks."""


def lowers(*op_types: str, to: str, domain: str = "") -> Callable[[Lowering], Lowering]:
    """Register a function that lowers operators.

    Args:
        op_types: ONNX operators.
        to: ncnn's words for them, for `qconvert formats`; empty for what no model holds.
        domain: Operator domain; `qconvert` for model-local functions.

    Raises:
        ValueError: If an operator is registered twice.
    """

    def register(function: Lowering) -> Lowering:
        for op_type in op_types:
            if (domain, op_type) in LOWERINGS:
                raise ValueError(f"{domain}::{op_type} is lowered twice")
            LOWERINGS[domain, op_type] = function
            _WORDS[f"{domain}::{op_type}" if domain else op_type] = to
        return function

    return register


def words() -> dict[str, str]:
    """ONNX operator → ncnn's words for it, sorted."""
    return {name: to for name, to in sorted(_WORDS.items()) if to}

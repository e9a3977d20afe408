"""The table of operators that need more than being copied, and the refusal they may raise."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from qconvert.frontends.onnx.call import Call

    Converter: TypeAlias = Callable[["Call"], Sequence[ir.Value]]

__all__ = ["CONTRIB", "CONVERTERS", "Refused", "converts"]

CONTRIB = "com.microsoft"
"""onnxruntime's own operators."""

CONVERTERS: dict[tuple[str, str], Converter] = {}
"""(domain, operator) → what brings a call of it to the intermediate representation."""


class Refused(Exception):  # noqa: N818 - a decision, not an error: it becomes a Problem
    """A converter declines; the text says why."""


def converts(*op_types: str, domain: str = "") -> Callable[[Converter], Converter]:
    """Register a converter for operators of a domain.

    Raises:
        ValueError: If one of them already has a converter.
    """

    def register(function: Converter) -> Converter:
        for op_type in op_types:
            if (domain, op_type) in CONVERTERS:
                raise ValueError(f"{domain}:{op_type} already has a converter")
            CONVERTERS[domain, op_type] = function
        return function

    return register

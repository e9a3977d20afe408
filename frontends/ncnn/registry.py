"""Which converter reads which layer type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Builder

__all__ = ["CONVERTERS", "Converter", "Entry", "WhyNot", "converts"]

Converter: TypeAlias = "Callable[[Builder, Layer], ir.Value | list[ir.Value]]"
"""Makes the nodes of a layer; returns its outputs."""

WhyNot: TypeAlias = "Callable[[Layer], str | None]"
"""Says from the parameters alone why a layer cannot be read; None when it can."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A layer type that is read."""

    convert: Converter
    why_not: WhyNot | None = None


CONVERTERS: Final[dict[str, Entry]] = {}


def converts(*kinds: str, why_not: WhyNot | None = None) -> Callable[[Converter], Converter]:
    """Register the converter of layer types `kinds`.

    Raises:
        ValueError: If one of them has a converter already.
    """

    def register(converter: Converter) -> Converter:
        for kind in kinds:
            if kind in CONVERTERS:
                raise ValueError(f"{kind} has two converters")
            CONVERTERS[kind] = Entry(converter, why_not)
        return converter

    return register

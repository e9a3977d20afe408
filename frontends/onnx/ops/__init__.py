"""Converters, one family of operators a module; importing this package registers them all."""

from __future__ import annotations

from qconvert.frontends.onnx.ops import (
    arguments,
    broadcast,
    constants,
    contrib,
    experimental,
    integer,
    normalization,
    qoperator,
    resampling,
    windows,
)
from qconvert.frontends.onnx.registry import CONTRIB, CONVERTERS, Refused

__all__ = [
    "CONTRIB",
    "CONVERTERS",
    "Refused",
    "arguments",
    "broadcast",
    "constants",
    "contrib",
    "experimental",
    "integer",
    "normalization",
    "qoperator",
    "resampling",
    "windows",
]

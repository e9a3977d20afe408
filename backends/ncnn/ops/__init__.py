"""Lowering functions, one operator family a file. Importing this package registers all of them."""

from __future__ import annotations

from qconvert.backends.ncnn.ops import (
    activation,
    conv,
    detection,
    elementwise,
    linear,
    norm,
    pool,
    recurrent,
    reduce,
    resize,
    shape,
)

__all__ = [
    "activation",
    "conv",
    "detection",
    "elementwise",
    "linear",
    "norm",
    "pool",
    "recurrent",
    "reduce",
    "resize",
    "shape",
]

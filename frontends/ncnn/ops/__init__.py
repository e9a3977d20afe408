"""The converters of ncnn's layers, one family a file."""

from qconvert.frontends.ncnn.ops import (
    activation,
    attention,
    conv,
    cut,
    dense,
    detection,
    elementwise,
    norm,
    pool,
    recurrent,
    reduce,
    resize,
    shape,
)

__all__ = [
    "activation",
    "attention",
    "conv",
    "cut",
    "dense",
    "detection",
    "elementwise",
    "norm",
    "pool",
    "recurrent",
    "reduce",
    "resize",
    "shape",
]

"""The converters of ncnn's layers, one family a file."""

from qconvert.frontends.ncnn.ops import (
    activation,
    conv,
    cut,
    dense,
    elementwise,
    norm,
    pool,
    reduce,
    resize,
    shape,
)

__all__ = [
    "activation",
    "conv",
    "cut",
    "dense",
    "elementwise",
    "norm",
    "pool",
    "reduce",
    "resize",
    "shape",
]

"""Operator converters, one family a file; importing this package fills the table."""

from __future__ import annotations

from qconvert.frontends.caffe.convert import CONVERTERS
from qconvert.frontends.caffe.ops import (
    activation,
    arithmetic,
    convolution,
    detection,
    normalization,
    pooling,
    product,
    rearrange,
    reduction,
    resize,
    shape,
)

__all__ = [
    "CONVERTERS",
    "activation",
    "arithmetic",
    "convolution",
    "detection",
    "normalization",
    "pooling",
    "product",
    "rearrange",
    "reduction",
    "resize",
    "shape",
]

"""Operator converters, one family a file; importing this package fills the table."""

from __future__ import annotations

from qconvert.frontends.caffe.convert import CONVERTERS
from qconvert.frontends.caffe.ops import (
    activation,
    convolution,
    pooling,
    product,
    rearrange,
    reduction,
    shape,
)

__all__ = [
    "CONVERTERS",
    "activation",
    "convolution",
    "pooling",
    "product",
    "rearrange",
    "reduction",
    "shape",
]

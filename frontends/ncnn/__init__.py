"""Reads ncnn's own files: a `.param` of any age with its `.bin`."""

from qconvert.frontends.ncnn import ops
from qconvert.frontends.ncnn.reader import operators, read

__all__ = ["operators", "ops", "read"]

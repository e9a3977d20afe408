"""Caffe: prototxt and caffemodel."""

from __future__ import annotations

from qconvert.frontends.caffe.reader import operators, read

__all__ = ["operators", "read"]

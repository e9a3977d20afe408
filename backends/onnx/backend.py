"""The row of the onnx target."""

from __future__ import annotations

from typing import Final

from qconvert.backends.onnx.policy import POLICY
from qconvert.backends.onnx.writer import open_bundle, open_float, operators, problems, write
from qconvert.target import Backend

__all__ = ["BACKEND"]

BACKEND: Final = Backend(
    name="onnx",
    policy=POLICY,
    write=write,
    problems=problems,
    open=open_bundle,
    open_float=open_float,
    operators=operators,
)

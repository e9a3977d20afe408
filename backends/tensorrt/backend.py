"""The row of the tensorrt target."""

from __future__ import annotations

from typing import Final

from qconvert.backends.tensorrt.check import check as check_files
from qconvert.backends.tensorrt.engine import engines
from qconvert.backends.tensorrt.lint import lint
from qconvert.backends.tensorrt.opening import open_bundle, open_float
from qconvert.backends.tensorrt.operators import operators
from qconvert.backends.tensorrt.options import check
from qconvert.backends.tensorrt.policy import POLICY
from qconvert.backends.tensorrt.writer import prepare, problems, write
from qconvert.target import Backend

__all__ = ["BACKEND"]

BACKEND: Final = Backend(
    name="tensorrt",
    policy=POLICY,
    write=write,
    problems=problems,
    open=open_bundle,
    open_float=open_float,
    operators=operators,
    check_options=check,
    prepare=prepare,
    lint=lint,
    check=check_files,
    engines=engines,
)

"""The row of the raw target."""

from __future__ import annotations

from typing import Final

from qconvert.backends.raw.options import check_options
from qconvert.backends.raw.policy import POLICY
from qconvert.backends.raw.simulation import largest_step, simulation
from qconvert.backends.raw.writer import (
    open_bundle,
    open_float,
    operators,
    problems,
    vectors,
    write,
)
from qconvert.target import Backend

__all__ = ["BACKEND"]

BACKEND: Final = Backend(
    name="raw",
    policy=POLICY,
    write=write,
    problems=problems,
    open=open_bundle,
    open_float=open_float,
    operators=operators,
    exact=vectors,
    largest_step=largest_step,
    simulate=simulation,
    check_options=check_options,
)

"""Constants inside a function body, which has no initializers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["array", "floats", "integers"]


def array(tape: ir.tape.Tape, values: npt.NDArray[Any]) -> ir.Value:
    """A Constant node with these values."""
    return tape.op("Constant", [], {"value": ir.Tensor(values)})


def floats(tape: ir.tape.Tape, values: float | Sequence[float]) -> ir.Value:
    """A float32 constant: [] for a number, [n] for several."""
    return array(tape, np.array(values, np.float32))


def integers(tape: ir.tape.Tape, values: int | Sequence[int]) -> ir.Value:
    """An int64 constant: [] for a number, [n] for several."""
    return array(tape, np.array(values, np.int64))

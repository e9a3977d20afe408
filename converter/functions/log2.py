"""`qconvert.DequantizeLog2(codes, scale)`: weights that are powers of two, but for one factor.

    w = 0                              for code 0
    w = ±scale * 2^(m - M)             for code ±m, m = 1..M, M = 2^(bits-1) - 1

Codes are int8, shape of the weight, within -M..M; `scale` is float32, [] or one per index of
`axis`, and the magnitude of the largest code. With `scale` taken out a weight is a shift:
x * w = ±(x << (m - 1)) at scale `scale * 2^(1 - M)`.

The body looks magnitudes up in a table of the 2 M + 1 values: powers of two are exact in float32,
so every runtime gets the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from qconvert.functions.build import call
from qconvert.functions.constants import array, integers
from qconvert.graph import shape_of
from qconvert.qdq import DEQUANTIZE_LOG2
from qconvert.quant import code_range, dequantize, log2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qconvert.quant import QParams

__all__ = ["dequantize_log2"]


def dequantize_log2(
    model: ir.Model, codes: ir.Value, scale: ir.Value, params: QParams, *, name: str
) -> ir.Node:
    """A call of the function, not yet in any graph; its output has the shape of `codes`.

    Args:
        model: Gets the function.
        codes: int8.
        scale: float32, [] or [channels].
        params: Width and channel axis, which become the attributes `bits` and `axis` (left out
            with one scale).
        name: Name of the node.
    """
    shape = shape_of(codes)
    top = code_range(params.bits)[1]
    unit = log2(1.0, bits=params.bits)
    values = dequantize(np.arange(-top, top + 1), unit)

    def body(tape: ir.tape.Tape, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        place = tape.op("Cast", [inputs[0]], {"to": ir.DataType.INT64})
        place = tape.op("Add", [place, integers(tape, top)])
        magnitude = tape.op("Gather", [array(tape, values), place])
        factor = inputs[1]
        if params.axis is not None:
            along = [1] * len(shape)
            along[params.axis] = -1
            factor = tape.op("Reshape", [factor, integers(tape, along)])
        real = tape.op("Mul", [magnitude, factor])
        real.type, real.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
        return [real]

    attributes = {"bits": params.bits} | ({} if params.axis is None else {"axis": params.axis})
    return call(model, DEQUANTIZE_LOG2, [codes, scale], attributes, body, name=name)

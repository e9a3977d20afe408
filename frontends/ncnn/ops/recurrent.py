"""LSTM, GRU and RNN over the rows of a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.frontends.ncnn.ops.dense import dequantized
from qconvert.frontends.ncnn.registry import converts

if TYPE_CHECKING:
    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Attribute, Builder
    from qconvert.quant import F32

__all__: list[str] = []

# Kind → ncnn's gates in the order in which ONNX wants them, the rows of its bias on the input
# side and those on the hidden side (-1: zeros).
_GATES: Final = {
    "LSTM": ((0, 2, 1, 3), (0, 2, 1, 3), (-1, -1, -1, -1)),  # I F O G → I O F G
    "GRU": ((1, 0, 2), (1, 0, 2), (-1, -1, 3)),  # R U N → U R N; the bias is R, U, WN, BN
    "RNN": ((0,), (0,), (-1,)),
}
_DIRECTIONS: Final = ("forward", "reverse", "bidirectional")


def _why_not(layer: Layer) -> str | None:
    """Directions that do not exist, and projections, which ONNX does not have."""
    if layer.int(2, 0) not in {0, 1, 2}:
        return f"direction {layer.int(2, 0)} is not known"
    if layer.kind == "LSTM" and layer.int(3, layer.int(0, 0)) != layer.int(0, 0):
        return "it projects its hidden state"
    if len(layer.inputs) > 1 or len(layer.outputs) > 1:
        return "its state is an input or an output"
    return None


@converts(*_GATES, why_not=_why_not)
def _recurrent(b: Builder, layer: Layer) -> ir.Value:
    """X [T, in] → [T, directions * H], state 0 at the start.

    Source: src/layer/lstm.cpp, gru.cpp, rnn.cpp. Biases of both sides are one in ncnn.
    """
    x = b.input()
    hidden = b.positive(0, 0)
    directions = 2 if layer.int(2, 0) == 2 else 1
    gates, input_rows, hidden_rows = _GATES[layer.kind]
    if len(b.dims(x)) != 2:
        raise b.bad(f"{layer.kind} '{layer.name}' reads a blob of {len(b.dims(x))} dims")
    steps, size = b.dims(x)
    rows = directions * len(gates) * hidden
    if b.weights["xc"].size != rows * size:
        raise b.bad(
            f"the input weight of '{layer.name}' has {b.weights['xc'].size} values",
            f"{rows} rows of {size} need {rows * size}",
        )
    shape = (directions, len(gates), hidden, -1)
    weights = [
        dequantized(b, name, f"{name}_scales", rows).reshape(shape)[:, gates]
        for name in ("xc", "hc")
    ]
    bias = b.weight("bias").reshape(directions, -1, hidden)
    sides = [_side(bias, side) for side in (input_rows, hidden_rows)]
    operands = [
        b.emit("Transpose", [x], (1, size), {"perm": [1, 0, 2]}, part="steps_first"),
        b.constant(weights[0].reshape(directions, -1, size), "weight"),
        b.constant(weights[1].reshape(directions, -1, hidden), "recurrence"),
        b.constant(np.concatenate(sides, axis=1), "bias"),
    ]
    operands[0].shape = ir.Shape([steps, 1, size])
    attributes: dict[str, Attribute] = {
        "hidden_size": hidden,
        "direction": _DIRECTIONS[layer.int(2, 0)],
    }
    if layer.kind == "GRU":
        attributes["linear_before_reset"] = 1
    y = b.emit(layer.kind, operands, (directions, 1, hidden), attributes)
    y.shape = ir.Shape([steps, directions, 1, hidden])
    moved = b.emit(
        "Transpose", [y], (steps, directions, hidden), {"perm": [2, 0, 1, 3]}, part="batch_first"
    )
    return b.reshape(moved, (steps, directions * hidden), "join")


def _side(bias: F32, rows: tuple[int, ...]) -> F32:
    """Rows of a bias [directions, rows, H] as [directions, gates * H]; -1 is a row of zeros."""
    zeros = np.zeros_like(bias[:, :1])
    picked = [zeros if row < 0 else bias[:, row : row + 1] for row in rows]
    return np.concatenate(picked, axis=1).reshape(bias.shape[0], -1)

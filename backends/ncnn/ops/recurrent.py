"""LSTM, GRU and RNN. ncnn runs one sequence, rows in time, both directions side by side.

ONNX stores the gates of an LSTM as i, o, f, c and of a GRU as z, r, h; ncnn as I, F, O, G and
R, U, N (src/layer/lstm.cpp, gru.cpp).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.backends.ncnn.net import Integers
from qconvert.backends.ncnn.ops.conv import int8_codes
from qconvert.backends.ncnn.ops.shape import crop
from qconvert.backends.ncnn.registry import Refusal, lowers

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context
    from qconvert.backends.ncnn.net import Blob, Draft, Weight
    from qconvert.formats.ncnn_param import Param
    from qconvert.quant import F32


@dataclass(frozen=True, slots=True)
class _Cell:
    """One kind of recurrent cell.

    Attributes:
        order: ncnn's gates as positions among ONNX's.
        activations: The ones it has, per direction.
    """

    order: tuple[int, ...]
    activations: tuple[str, ...]


_CELLS: Final = {
    "LSTM": _Cell((0, 2, 1, 3), ("sigmoid", "tanh", "tanh")),
    "GRU": _Cell((1, 0, 2), ("sigmoid", "tanh")),
    "RNN": _Cell((0,), ("tanh",)),
}
_DIRECTIONS: Final = {"forward": 0, "reverse": 1, "bidirectional": 2}


@lowers("LSTM", "GRU", "RNN", to="the layer of that name")
def _recurrent(ctx: Context, node: ir.Node) -> None:
    """X [T, 1, I], W [D, gates * H, I], R [D, gates * H, H], B [D, 2 * gates * H]."""
    cell = _CELLS[node.op_type]
    _refuse_extras(ctx, node, cell)
    steps, batch, width = ctx.shape(node.inputs[0])
    if batch != 1:
        raise Refusal(f"the batch is {batch}, ncnn runs one sequence")
    w, r = (_sorted(ctx.weights(node.inputs[i], "weight"), cell.order) for i in (1, 2))
    dirs, hidden = w.shape[0], r.shape[-1]
    bias = _bias(ctx, node, cell, (dirs, hidden))
    params: dict[int, Param] = {
        0: hidden,
        1: w.size,
        2: _DIRECTIONS[node.attributes.get_string("direction", "forward") or "forward"],
    }
    weights: dict[str, Weight] = {"xc": w, "bias": bias, "hc": r}
    rows = ctx.reshape(ctx.blob(node.inputs[0]), (steps, width), "sequence")
    draft = ctx.draft(
        node.op_type, [rows], params, shapes=[(steps, dirs * hidden)], weights=weights
    )
    _integers(draft, node, cell, dirs)
    y = draft.output
    if _is_used(node, 0):
        ctx.bind(node.outputs[0], y)
    if _is_used(node, 1):
        ctx.bind(node.outputs[1], _last(ctx, y, hidden, params[2]))


def _integers(draft: Draft, node: ir.Node, cell: _Cell, dirs: int) -> None:
    """Integer weights, when both come as such with a scale for each row."""
    found = [int8_codes(node.inputs[index]) for index in (1, 2)]
    scales = []
    for slot, codes in zip(("xc", "hc"), found, strict=True):
        if codes is None or codes.params.axis != 1 or (codes.codes == -128).any():
            if any(entry is not None for entry in found):
                draft.details["float"] = "its weights are not int8 with a scale for each row"
            return
        rows = codes.params.scale.reshape(len(cell.order), -1)[list(cell.order)].reshape(-1)
        scales.append(np.tile(rows, dirs))
        gates = codes.codes.reshape(dirs, len(cell.order), -1, codes.codes.shape[-1])
        draft.weights[slot] = np.ascontiguousarray(gates[:, list(cell.order)])
    for slot, steps in zip(("xc_scales", "hc_scales"), scales, strict=True):
        draft.weights[slot] = (1.0 / steps).astype(np.float32)
    draft.params[8] = 2
    bits = max(codes.params.bits for codes in found if codes is not None)
    draft.integers = Integers(np.concatenate(scales), 0.0, bits=bits)
    draft.details["dynamic"] = "the scale of its input is found at every step"


def _sorted(weight: F32, order: tuple[int, ...]) -> F32:
    """[D, gates * H, n] with the gates in ncnn's order."""
    dirs, rows, width = weight.shape
    gates = weight.reshape(dirs, len(order), rows // len(order), width)
    return np.ascontiguousarray(gates[:, list(order)])


def _bias(ctx: Context, node: ir.Node, cell: _Cell, sizes: tuple[int, int]) -> F32:
    """Input and hidden bias in ncnn's rows; a GRU keeps those of its last gate apart."""
    dirs, hidden = sizes
    gates = len(cell.order)
    value = node.inputs[3] if len(node.inputs) > 3 else None
    given = np.zeros((dirs, 2, gates, hidden), np.float32)
    if value is not None:
        given = ctx.weights(value, "bias").reshape(dirs, 2, gates, hidden)
    given = given[:, :, list(cell.order)]
    joined = given.sum(axis=1)
    if node.op_type == "GRU":
        joined = np.concatenate([joined[:, :2], given[:, 0, 2:], given[:, 1, 2:]], axis=1)
    return np.ascontiguousarray(joined, dtype=np.float32)


def _last(ctx: Context, y: Blob, hidden: int, direction: Param) -> Blob:
    """The state after the last step: the end of a forward pass, the beginning of a reverse one."""
    steps = y.shape[0]
    parts = []
    ways = (False, True) if direction == 2 else (direction == 1,)
    for index, backwards in enumerate(ways):
        row = (0, 1) if backwards else (steps - 1, steps)
        at = crop(ctx, y, 0, row, f"last_{index}")
        columns = (index * hidden, (index + 1) * hidden)
        parts.append(crop(ctx, at, 1, columns, f"state_{index}"))
    if len(parts) == 1:
        return parts[0]
    return ctx.layer("Concat", parts, {0: 0}, shape=(2, hidden), part="states")


def _is_used(node: ir.Node, index: int) -> bool:
    """Whether anyone wants output `index`."""
    if index >= len(node.outputs):
        return False
    return bool(node.outputs[index].uses()) or node.outputs[index].is_graph_output()


def _refuse_extras(ctx: Context, node: ir.Node, cell: _Cell) -> None:
    """Refuse what ncnn's cells do not have."""
    names = [name.lower() for name in node.attributes.get_strings("activations", ()) or ()]
    own = tuple(names) in {(), cell.activations, cell.activations * 2}
    states = [value for value in node.inputs[5:7] if value is not None]
    reasons = (
        (not own, f"its activations are {names}"),
        (node.attributes.get_float("clip", 0.0) != 0.0, "its state is clipped"),
        (node.attributes.get_int("layout", 0) != 0, "its sequences lie batch first"),
        (node.attributes.get_int("input_forget", 0) != 0, "its gates are coupled"),
        (
            node.op_type == "GRU" and node.attributes.get_int("linear_before_reset", 0) == 0,
            "it resets before the product (linear_before_reset 0)",
        ),
        (any(value is not None for value in node.inputs[4:5]), "it is given sequence lengths"),
        (any(not _is_zero(ctx, value) for value in states), "it begins in a state of its own"),
        (any(value is not None for value in node.inputs[7:]), "it has peepholes"),
        (_is_used(node, 2), "its cell state is used"),
    )
    why = next((text for holds, text in reasons if holds), None)
    if why:
        raise Refusal(why)


def _is_zero(ctx: Context, value: ir.Value) -> bool:
    """Whether a state is constant zeros, which is where ncnn begins."""
    known = ctx.constant(value)
    return known is not None and not known.any()

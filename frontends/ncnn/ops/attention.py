"""MultiHeadAttention over the rows of matrices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qconvert.frontends.ncnn.ops.dense import dequantized
from qconvert.frontends.ncnn.registry import converts

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Builder

__all__: list[str] = []


def _why_not(layer: Layer) -> str | None:
    """Caches of language models, and their weights in blocks."""
    if layer.int(7, 0):
        return "it keeps a cache of keys and values"
    return "its weights are quantized in blocks" if layer.int(18, 0) >= 400 else None


@converts("MultiHeadAttention", why_not=_why_not)
def _attention(b: Builder, layer: Layer) -> ir.Value:
    """softmax(scale * Q K^T + mask) V per head, with projections before and after.

    Inputs are q [Tq, qdim], k [Tk, kdim] and v [Tk, vdim]; those missing are the one before.
    Source: src/layer/multiheadattention.cpp.
    """
    size, heads = b.positive(0, 0), b.positive(1, 1)
    masked = bool(layer.int(5, 0))
    if size % heads:
        raise b.bad(f"'{layer.name}' cannot split {size} into {heads} heads")
    values = b.inputs()
    mask = values.pop() if masked else None
    if not 1 <= len(values) <= 3:
        raise b.bad(f"'{layer.name}' has {len(layer.inputs)} inputs")
    query, key, value = (*values, values[-1], values[-1])[:3]
    scale = layer.float(6, 1.0 / math.sqrt(size // heads))
    width = size // heads
    q = _heads(b, _project(b, query, "q", scale), heads)
    k = _heads(b, _project(b, key, "k", 1.0), heads)
    v = _heads(b, _project(b, value, "v", 1.0), heads)
    long, short = b.dims(q)[1], b.dims(k)[1]
    if b.dims(v)[1] != short:
        raise b.bad(f"'{layer.name}' has {short} keys and {b.dims(v)[1]} values")
    turned = b.emit(
        "Transpose", [k], (heads, width, short), {"perm": [0, 1, 3, 2]}, part="k_turned"
    )
    scores = b.emit("MatMul", [q, turned], (heads, long, short), part="scores")
    if mask is not None:
        if b.dims(mask)[-2:] != (long, short):
            raise b.bad(f"the mask of '{layer.name}' has shape {list(b.dims(mask))}")
        wide = b.reshape(mask, (*(1,) * (3 - len(b.dims(mask))), *b.dims(mask)), "mask")
        scores = b.emit("Add", [scores, wide], b.dims(scores), part="masked")
    shares = b.emit("Softmax", [scores], b.dims(scores), {"axis": 3}, part="softmax")
    mixed = b.emit("MatMul", [shares, v], (heads, long, width), part="mixed")
    rows = b.emit("Transpose", [mixed], (long, heads, width), {"perm": [0, 2, 1, 3]}, part="rows")
    return _project(b, b.reshape(rows, (long, size), "joined"), "out", 1.0)


def _project(b: Builder, x: ir.Value, part: str, scale: float) -> ir.Value:
    """Rows [T, in] times the weight [out, in] of one part, plus its bias."""
    bias = b.weight(f"{part}_bias")
    scales = "out_scale" if part == "out" else f"{part}_scales"
    weight = dequantized(b, f"{part}_weight", scales, bias.size).reshape(bias.size, -1)
    if len(b.dims(x)) != 2 or b.dims(x)[1] != weight.shape[1]:
        raise b.bad(
            f"the {part} weight of '{b.layer.name}' reads rows of {weight.shape[1]}",
            f"its input has shape {list(b.dims(x))}",
        )
    out = (b.dims(x)[0], bias.size)
    factor = np.float32(scale)
    y = b.emit("MatMul", [x, b.constant(weight.T * factor, f"{part}_weight")], out, part=part)
    return b.emit("Add", [y, b.constant(bias * factor, f"{part}_bias")], out, part=f"{part}_bias")


def _heads(b: Builder, x: ir.Value, heads: int) -> ir.Value:
    """[T, E] → [heads, T, E / heads]."""
    steps, size = b.dims(x)
    split = b.reshape(x, (steps, heads, size // heads), "heads")
    out = (heads, steps, size // heads)
    return b.emit("Transpose", [split], out, {"perm": [0, 2, 1, 3]}, part="heads_first")

"""MultiHeadAttention from the layers that exporters write it in.

    q, k, v  =  rows of x Wq + bq, y Wk + bk, z Wv + bv, taken apart into heads
    out      =  softmax(scale q k' [+ mask]) v, heads side by side, Wo + bo

How an exporter takes heads apart differs (one projection or three, reshapes, transposes, slices in
any order), and what matters is only which column of a projection ends where. So the layers between
a projection and the products are run on the *positions* of its elements: if row s of head h holds
the same columns for every s, these columns are the head's part of the weight.

Reference: Tencent/ncnn src/layer/multiheadattention.cpp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.backends.ncnn.net import Blob, Draft
from qconvert.backends.ncnn.permutation import ORDERS

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.backends.ncnn.net import Links, Net, Weight
    from qconvert.formats.ncnn_param import Param

    Positions = npt.NDArray[np.int64]

__all__ = ["fuse_attention"]

_MUL: Final = 2
_DIV: Final = 3
_MOVES: Final = frozenset({"Reshape", "Flatten", "Permute", "Slice", "Crop"})


@dataclass(frozen=True, slots=True)
class _Projection:
    """Where q, k or v comes from.

    Attributes:
        layer: The InnerProduct.
        columns: Its outputs that the heads hold, [heads, size].
        factor: What they are multiplied with on the way.
        path: Layers in between.
    """

    layer: Draft
    columns: Positions
    factor: float
    path: tuple[Draft, ...]


@dataclass(frozen=True, slots=True)
class _Scores:
    """The way from the softmax up to the product of queries and keys.

    Attributes:
        product: That product.
        factor: What it is multiplied with.
        mask: What is added then; None for nothing.
        path: Layers in between, the softmax included.
    """

    product: Draft
    factor: float
    mask: Blob | None
    path: tuple[Draft, ...]


def fuse_attention(net: Net) -> None:
    """Replace every attention in float that ncnn has in one layer."""
    for softmax in net:
        if softmax.kind == "Softmax" and softmax in net.layers:
            _fuse(net, softmax)


def _fuse(net: Net, softmax: Draft) -> None:
    """Replace the attention around one softmax, if it is one."""
    links = net.links()
    scores = _scores(links, softmax)
    values = links.only_reader(softmax.output)
    if scores is None or values is None or not _is_product(values):
        return
    if values.inputs[0] is not softmax.output:
        return
    query = _projection(links, scores.product.inputs[0], rows_last=False)
    key = _projection(links, scores.product.inputs[1], rows_last=True)
    value = _projection(links, values.inputs[1], rows_last=False)
    if query is None or key is None or value is None:
        return
    if not query.columns.shape == key.columns.shape == value.columns.shape:
        return
    end = _end(links, values)
    if end is None or end[0].int(0) != query.layer.input.shape[-1]:
        return
    out, order, path = end
    inside = [*scores.path, scores.product, values, *path, out]
    for part in (query, key, value):
        inside += [part.layer, *part.path]
    if not _is_closed(net, links, inside, out):
        return
    layer = _attention(scores, (query, key, value), out, order)
    net.replace(out, [layer])
    if scores.mask is not None and scores.mask.shape[0] == 1 < layer.int(1):
        _flatten_mask(net, layer)
    for gone in {id(entry): entry for entry in inside if entry is not out}.values():
        net.remove(gone)


def _is_product(layer: Draft) -> bool:
    """Whether a layer multiplies two computed matrices."""
    return layer.kind == "MatMul" and len(layer.inputs) == 2 and not layer.int(0)


def _scalar(layer: Draft) -> float | None:
    """The number a layer multiplies its one input with."""
    if layer.kind != "BinaryOp" or len(layer.inputs) != 1 or layer.int(0) not in {_MUL, _DIV}:
        return None
    number = layer.float(2)
    if layer.int(0) == _MUL:
        return number
    return 1.0 / number if number else None


def _scores(links: Links, softmax: Draft) -> _Scores | None:
    """What the softmax, over the last axis, is taken of."""
    if softmax.int(0) not in {len(softmax.output.shape) - 1, -1}:
        return None
    path, factor, mask = [softmax], 1.0, None
    layer = links.producer(softmax.input)
    while layer is not None and links.only_reader(layer.output) is not None:
        if _is_product(layer):
            return _Scores(layer, factor, mask, tuple(path))
        number = _scalar(layer)
        added = _mask(links, layer) if number is None and len(path) == 1 else None
        if number is not None:
            factor *= number
            path.append(layer)
            layer = links.producer(layer.input)
        elif added is not None:
            scores, mask = added
            path.append(layer)
            layer = links.producer(scores)
        else:
            return None
    return None


def _mask(links: Links, layer: Draft) -> tuple[Blob, Blob] | None:
    """Scores and mask, where a layer adds a mask that ncnn takes: one for all heads, or each."""
    if layer.kind != "BinaryOp" or layer.int(0) != 0 or len(layer.inputs) != 2:
        return None
    full = layer.output.shape
    for scores, mask in (layer.inputs, layer.inputs[::-1]):
        maker = links.producer(scores)
        if maker is None or not (_is_product(maker) or _scalar(maker) is not None):
            continue
        if scores.shape == full and mask.shape in {full, full[-2:], (1, *full[-2:])}:
            return scores, mask
    return None


def _projection(links: Links, blob: Blob, *, rows_last: bool) -> _Projection | None:
    """The InnerProduct behind `blob` [heads, rows, size] (or [heads, size, rows])."""
    steps: list[tuple[Draft, Blob]] = []
    factor = 1.0
    layer = links.producer(blob)
    while layer is not None and layer.kind != "InnerProduct":
        number = _scalar(layer)
        if number is None and layer.kind not in _MOVES:
            return None
        factor *= 1.0 if number is None else number
        steps.append((layer, blob))
        blob = layer.input
        layer = links.producer(blob)
    if layer is None or not _is_plain(layer) or len(layer.output.shape) != 2:
        return None
    positions = np.arange(layer.output.size, dtype=np.int64).reshape(layer.output.shape)
    for step, result in reversed(steps):
        moved = positions if _scalar(step) is not None else _moved(step, positions, result)
        if moved is None:
            return None
        positions = moved
    heads = positions if positions.ndim == 3 else positions[np.newaxis]
    if heads.ndim != 3:
        return None
    heads = heads.swapaxes(1, 2) if rows_last else heads
    rows, width = layer.output.shape
    columns = heads[:, 0, :]
    same = columns[:, np.newaxis, :] + width * np.arange(rows)[:, np.newaxis]
    if heads.shape[1] != rows or columns.max() >= width or not np.array_equal(heads, same):
        return None
    return _Projection(layer, columns, factor, tuple(step for step, _ in steps))


def _is_plain(layer: Draft) -> bool:
    """Whether an InnerProduct is a matrix product in float and nothing else."""
    return layer.integers is None and not layer.int(9) and len(layer.input.shape) == 2


def _moved(layer: Draft, positions: Positions, result: Blob) -> Positions | None:
    """What a layer that only moves elements makes of them; None when it does more."""
    match layer.kind:
        case "Reshape" | "Flatten":
            return positions.reshape(result.shape)
        case "Permute":
            orders = {number: order for order, number in ORDERS[positions.ndim].items()}
            return positions.transpose(orders[layer.int(0)])
        case "Slice":
            axis, before = layer.int(1), 0
            for other in layer.outputs:
                if other is result:
                    break
                before += other.shape[axis]
            taken = np.arange(before, before + result.shape[axis])
            return positions.take(taken, axis)
        case "Crop":
            bounds = [layer.params.get(key) for key in (9, 10, 11)]
            if not all(isinstance(entry, tuple) and len(entry) == 1 for entry in bounds):
                return None
            begin, end, axis = (int(entry[0]) for entry in bounds if isinstance(entry, tuple))
            return positions.take(np.arange(begin, end), axis)
        case _:
            return None


def _flatten_mask(net: Net, layer: Draft) -> None:
    """One mask for all heads has two axes: with three, ncnn takes one for each head."""
    mask = layer.inputs[-1]
    rows, columns = mask.shape[-2:]
    flat = Blob((rows, columns))
    params: dict[int, Param] = {0: columns, 1: rows}
    net.insert_before(layer, Draft("Reshape", f"{layer.name}/mask", [mask], [flat], params))
    layer.inputs[-1] = flat


def _end(links: Links, values: Draft) -> tuple[Draft, Positions, tuple[Draft, ...]] | None:
    """The InnerProduct behind the heads, where each of its inputs comes from, and what is between.

    Positions are columns of the heads side by side.
    """
    shape = values.output.shape if len(values.output.shape) == 3 else (1, *values.output.shape)
    if len(shape) != 3:
        return None
    heads, rows, size = shape
    positions = np.arange(values.output.size, dtype=np.int64).reshape(values.output.shape)
    path: list[Draft] = []
    layer = links.only_reader(values.output)
    while layer is not None and layer.kind in {"Reshape", "Flatten", "Permute"}:
        moved = _moved(layer, positions, layer.output)
        assert moved is not None
        positions = moved
        path.append(layer)
        layer = links.only_reader(layer.output)
    if layer is None or layer.kind != "InnerProduct" or not _is_plain(layer):
        return None
    if positions.shape != (rows, heads * size):
        return None
    first = positions[0]
    head, rest = first // (rows * size), first % (rows * size)
    same = first + size * np.arange(rows)[:, np.newaxis]
    if rest.max() >= size or not np.array_equal(positions, same):
        return None
    return layer, head * size + rest, tuple(path)


def _is_closed(net: Net, links: Links, inside: list[Draft], out: Draft) -> bool:
    """Whether nobody outside reads what the layers inside make, but for the result."""
    known = {id(layer) for layer in inside}
    blobs = [blob for layer in inside if layer is not out for blob in layer.outputs]
    return not any(net.is_output(blob) for blob in blobs) and all(
        id(reader) in known for blob in blobs for reader in links.readers(blob)
    )


def _attention(
    scores: _Scores,
    parts: tuple[_Projection, _Projection, _Projection],
    out: Draft,
    order: Positions,
) -> Draft:
    """The one layer."""
    heads, size = parts[0].columns.shape
    width = heads * size
    weights: dict[str, Weight] = {}
    for name, part in zip(("q", "k", "v"), parts, strict=True):
        columns = part.columns.reshape(-1)
        matrix = part.layer.weights["weight"].reshape(part.layer.int(0), -1)
        bias = part.layer.weights.get("bias", np.zeros(part.layer.int(0), np.float32))
        # A factor of the values cannot go into the scale of the scores.
        factor = np.float32(part.factor if name == "v" else 1.0)
        weights[f"{name}_weight"] = (matrix[columns] * factor).astype(np.float32)
        weights[f"{name}_bias"] = (bias[columns] * factor).astype(np.float32)
    matrix = out.weights["weight"].reshape(out.int(0), -1)
    back = np.empty_like(matrix)
    back[:, order] = matrix
    weights["out_weight"] = back.astype(np.float32)
    bias = out.weights.get("bias", np.zeros(out.int(0), np.float32))
    weights["out_bias"] = bias.astype(np.float32)
    inputs = [part.layer.input for part in parts]
    params: dict[int, Param] = {0: width, 1: heads, 2: weights["q_weight"].size}
    for key, blob in ((3, inputs[1]), (4, inputs[2])):
        if blob.shape[-1] != width:
            params[key] = blob.shape[-1]
    scale = scores.factor * parts[0].factor * parts[1].factor
    if not math.isclose(scale, 1 / math.sqrt(size), rel_tol=1e-6):
        params[6] = scale
    if inputs[1] is inputs[2]:
        inputs.pop()
        if inputs[0] is inputs[1]:
            inputs.pop()
    if scores.mask is not None:
        params[5] = 1
        inputs.append(scores.mask)
    layer = Draft("MultiHeadAttention", out.name, inputs, out.outputs, params, weights)
    layer.details["attention"] = f"{heads} heads of {size}"
    return layer

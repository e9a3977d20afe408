"""Recognize a channel shuffle however it is written, and write it in one way.

    channel c = a * C/g + b  of [1, C, H, W] goes to  b * g + a          (0 <= a < g, 0 <= b < C/g)

    =  Reshape [1, g, C/g, H, W] → Transpose (0, 2, 1, 3, 4) → Reshape [1, C, H, W]

Exporters fold the image into one axis ([g, C/g, H*W]), leave the batch out, or gather channels by
a list. What a chain does is found by sending the numbers of all places through it, so whatever
permutes the channels like a shuffle is one. (ShuffleNet, arXiv:1707.01083, figure 1.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
from typing_extensions import override

from qconvert.graph import constant
from qconvert.passes.match import made_by
from qconvert.passes.rewrite import NodePass, add_initializer, known_shape

if TYPE_CHECKING:
    import numpy.typing as npt

    Order = npt.NDArray[np.int64]

__all__ = ["RecognizeShuffle"]

_SWAP: Final = (0, 2, 1, 3, 4)
_LARGEST: Final = 1 << 22  # places of a tensor that are followed one by one


def _gathered(node: ir.Node) -> tuple[ir.Value, Order] | None:
    """Source and channel order of a Gather by a list."""
    source, indices = node.inputs[0], constant(node.inputs[1])
    shape = known_shape(source)
    if source is None or indices is None or indices.ndim != 1 or shape is None or len(shape) != 4:
        return None
    if node.attributes.get_int("axis", 0) % 4 != 1 or indices.size != shape[1] or shape[0] != 1:
        return None
    return source, indices.astype(np.int64) % shape[1]


def _moved(node: ir.Node) -> tuple[ir.Value, Order, bool] | None:
    """Source and channel order of Reshape → Transpose → Reshape; whether that is the one way."""
    swap = made_by(node.inputs[0], "Transpose")
    first = made_by(swap.inputs[0], "Reshape") if swap is not None else None
    if swap is None or first is None:
        return None
    source, split = first.inputs[0], known_shape(first.outputs[0])
    shape, result = known_shape(source), known_shape(node.outputs[0])
    if source is None or shape is None or split is None or shape != result or len(shape) != 4:
        return None
    size = int(np.prod(shape))
    if shape[0] != 1 or not 0 < size <= _LARGEST:
        return None
    perm = swap.attributes.get_ints("perm", tuple(reversed(range(len(split)))))
    places = np.arange(size).reshape(split).transpose(perm).reshape(shape[1], -1)
    inner = places.shape[1]
    order = places[:, 0] // inner
    if (places != order[:, None] * inner + np.arange(inner)).any():
        return None
    return source, order, tuple(perm) == _SWAP and split[0] == 1


def _groups(order: Order) -> int | None:
    """How many groups a shuffle of this order has; None when it is none, or moves nothing."""
    channels = order.size
    if channels < 4 or order[1] < 2 or channels % order[1]:
        return None
    groups = channels // int(order[1])
    shuffled = np.arange(channels).reshape(groups, -1).T.ravel()
    return groups if groups > 1 and np.array_equal(order, shuffled) else None


def _shuffle(node: ir.Node) -> tuple[ir.Value, int] | None:
    """Source and groups of a shuffle that is written in another way."""
    if node.op_type == "Gather":
        found = _gathered(node)
    else:
        moved = _moved(node)
        found = None if moved is None or moved[2] else moved[:2]
    groups = None if found is None else _groups(found[1])
    return None if found is None or groups is None else (found[0], groups)


class RecognizeShuffle(NodePass):
    """Write every channel shuffle as Reshape, Transpose, Reshape of five axes."""

    step = "recognize_shuffle"

    @override
    def matches(self, node: ir.Node) -> bool:
        known = node.op_type in {"Gather", "Reshape"} and not node.domain
        return known and _shuffle(node) is not None

    @override
    def rewrite(self, node: ir.Node) -> None:
        found, graph = _shuffle(node), node.graph
        assert found is not None
        assert isinstance(graph, ir.Graph)
        source, groups = found
        shape = known_shape(source)
        assert shape is not None
        split = (1, groups, shape[1] // groups, *shape[2:])
        swapped = tuple(split[axis] for axis in _SWAP)
        kind = ir.DataType.FLOAT if source.dtype is None else source.dtype
        parts = [
            ir.val(f"{node.name}/{part}", dtype=kind, shape=size)
            for part, size in (("split", split), ("swapped", swapped))
        ]
        sizes = [
            add_initializer(graph, f"{node.name}/{part}_shape", np.array(size, np.int64))
            for part, size in (("split", split), ("joined", shape))
        ]
        new = [
            ir.node("Reshape", [source, sizes[0]], outputs=parts[:1], name=f"{node.name}/split"),
            ir.node(
                "Transpose", parts[:1], {"perm": list(_SWAP)}, outputs=parts[1:],
                name=f"{node.name}/swap",
            ),
        ]  # fmt: skip
        graph.insert_before(node, new)
        node.op_type = "Reshape"
        node.attributes.clear()
        node.replace_input_with(0, parts[1])
        node.replace_input_with(1, sizes[1])

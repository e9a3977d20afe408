"""Which tensors hold the same numbers, and so share one scale.

Operators that move, choose or repeat numbers commute with rounding, as does joining tensors of
one scale. TensorRT moves Q/DQ through them, and NVIDIA's tools give what goes in and what comes
out one scale (Deep-Learning-Accelerator-SW tools/qdq-translator; modelopt `concat_elimination`).

A tensor that only a Relu or Clip reads needs no scale of its own either: what the activation
function's output cannot hold is cut off there anyway, so its scale serves both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from qconvert.graph import constant, is_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["BOUNDS", "Groups", "is_activation", "same_numbers"]

BOUNDS: Final = frozenset({"Relu", "Clip"})
"""Activation functions that only cut off."""

_MOVES: Final = frozenset(
    {
        "DepthToSpace", "Dropout", "Flatten", "Identity", "MaxPool", "Reshape", "SpaceToDepth",
        "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip


def is_activation(value: ir.Value | None) -> bool:
    """Whether `value` is a float tensor of known size that depends on the network's input.

    How many objects were found is known only when the network has run: such lists are results.
    """
    if value is None or not value.name or value.dtype != ir.DataType.FLOAT:
        return False
    if constant(value) is not None or value.is_initializer() or value.shape is None:
        return False
    return all(isinstance(dim, int) for dim in value.shape)


def same_numbers(node: ir.Node) -> bool:
    """Whether the first output of `node` holds numbers of its first input, and at most zeros."""
    if node.domain:
        return False
    if node.op_type in {"Resize", "Upsample"}:
        return node.attributes.get_string("mode", "nearest") == "nearest"
    if node.op_type == "Pad":
        if node.attributes.get_string("mode", "constant") != "constant":
            return True
        fill = node.inputs[2] if len(node.inputs) > 2 else None
        filled = None if fill is None else constant(fill)
        if node.attributes.get_float("value", 0.0) != 0.0:  # before opset 11
            return False
        return fill is None or (filled is not None and not filled.any())
    return node.op_type in _MOVES


@dataclass(slots=True)
class Groups:
    """The float tensors of one graph, in groups that share a scale.

    Attributes:
        order: Every float tensor: network inputs, then in the order they are made.
    """

    order: list[ir.Value] = field(default_factory=list)
    _leader: dict[ir.Value, ir.Value] = field(default_factory=dict)
    _members: dict[ir.Value, list[ir.Value]] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: ir.Graph) -> Groups:
        """The groups of `graph`; QuantizeLinear and DequantizeLinear take no part."""
        groups = cls()
        values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
        groups.order = [
            value for value in values if is_activation(value) and not _made_by_dq(value)
        ]
        groups._leader = {value: value for value in groups.order}
        for node in graph:
            if node.op_type == "Concat" and not node.domain:
                groups._join([*node.inputs, node.outputs[0]])
            elif same_numbers(node):
                groups._join([node.inputs[0], node.outputs[0]])
        for value in groups.order:
            groups._members.setdefault(groups._find(value), []).append(value)
        return groups

    def _find(self, value: ir.Value) -> ir.Value:
        while self._leader[value] is not value:
            self._leader[value] = self._leader[self._leader[value]]
            value = self._leader[value]
        return value

    def _join(self, values: Sequence[ir.Value | None]) -> None:
        known = [value for value in map(source_of, values) if value in self._leader]
        for value in known[1:]:
            assert value is not None
            assert known[0] is not None
            self._leader[self._find(value)] = self._find(known[0])

    def __iter__(self) -> Iterator[list[ir.Value]]:
        return iter(self._members.values())

    def members(self, value: ir.Value) -> list[ir.Value]:
        """What shares a scale with `value`, itself included."""
        return self._members[self._find(value)]

    def bounded(self, group: Sequence[ir.Value]) -> ir.Value | None:
        """The output of the one Relu or Clip that reads a group, where nothing else does."""
        inside, readers = set(group), set()
        for value in group:
            if is_output(value):
                return None
            for reader in _readers(value):
                if reader.outputs[0] not in inside:
                    readers.add(reader)
        if len(readers) != 1:
            return None
        (reader,) = readers
        result = reader.outputs[0]
        ok = reader.op_type in BOUNDS and not reader.domain and result in self._leader
        return result if ok else None

    def spread(self, scales: Mapping[str, float]) -> dict[str, float]:
        """Scales of all tensors that `scales` tells something about, in `order`.

        Args:
            scales: Tensor name → scale, for some tensors. Of those that disagree in a group, the
                largest counts.
        """
        found: dict[ir.Value, float] = {}
        # Groups behind an activation function are settled before those in front of it.
        for group in reversed(list(self)):
            known = [scales[str(v.name)] for v in group if str(v.name) in scales]
            if known:
                found[group[0]] = max(known)
        for group in reversed(list(self)):
            behind = None if group[0] in found else self.bounded(group)
            if behind is not None and (first := self.members(behind)[0]) in found:
                found[group[0]] = found[first]
        whole = {value: found[group[0]] for group in self if group[0] in found for value in group}
        return {str(value.name): whole[value] for value in self.order if value in whole}


def source_of(value: ir.Value | None) -> ir.Value | None:
    """The float tensor behind a pair, or `value` itself."""
    if value is None or not _made_by_dq(value):
        return value
    node = value.producer()
    assert node is not None
    codes = node.inputs[0].producer() if node.inputs[0] is not None else None
    if codes is not None and codes.op_type == "Clip":
        codes = codes.inputs[0].producer() if codes.inputs[0] is not None else None
    return value if codes is None or codes.op_type != "QuantizeLinear" else codes.inputs[0]


def _made_by_dq(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "DequantizeLinear" and not node.domain


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes that compute with `value`, through its pairs."""
    for node in value.consumers():
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and not node.domain:
            yield from _readers(node.outputs[0])
        else:
            yield node

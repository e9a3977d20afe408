"""What a user's request means for each layer: widths, kinds of codes, or float, and why.

From the weakest to the strongest: the widths of the whole network, those of its first and last
layers, the sections of a configuration in their order, `--layer-bits`, `--float`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from qconvert.graph import constant
from qconvert.passes.linear import LINEAR
from qconvert.plan import LayerChoice
from qconvert.quant import LOG2_BITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    from qconvert.plan import Scheme

__all__ = ["Choices", "Wanted", "ends", "is_layer"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user wants of one layer.

    Attributes:
        weight_bits: Width of its weight.
        input_bits: Width of its inputs.
        log2: Whether its weight's codes are exponents.
        why_float: What keeps it in float; None: nothing does.
    """

    weight_bits: int
    input_bits: int
    log2: bool
    why_float: str | None = None


@dataclass(slots=True)
class Choices:
    """A request, node by node.

    Attributes:
        scheme: The request.
        first: Layers that no other layer with weights stands before.
        last: Layers that no other layer with weights stands behind.
    """

    scheme: Scheme
    first: frozenset[ir.Node] = frozenset()
    last: frozenset[ir.Node] = frozenset()
    _known: dict[ir.Node, Wanted] = field(default_factory=dict)

    @classmethod
    def of(cls, scheme: Scheme, model: ir.Model) -> Choices:
        """The request `scheme` for the layers of `model`."""
        plain = LayerChoice()
        if scheme.first_layer == plain and scheme.last_layer == plain:
            return cls(scheme)
        return cls(scheme, *ends(model))

    def wanted(self, node: ir.Node) -> Wanted:
        """What the user wants of `node`."""
        if node not in self._known:
            self._known[node] = self._decide(node)
        return self._known[node]

    def _decide(self, node: ir.Node) -> Wanted:
        scheme, name = self.scheme, str(node.name)
        choice, why_float = LayerChoice(), None
        for where, other in self._matches(node, name):
            choice = _over(choice, other)
            if other.keep_float is not None:
                why_float = f"the user keeps it in float ({where})" if other.keep_float else None
        for glob, bits in scheme.layer_bits.items():
            if fnmatchcase(name, glob):
                choice = replace(choice, weight_bits=bits, activation_bits=bits)
        for glob in scheme.float_layers:
            if fnmatchcase(name, glob):
                why_float = f"the user keeps it in float (--float {glob})"
                break
        weight_bits = choice.weight_bits or scheme.weight_bits
        exponents = scheme.log2_weights if choice.log2_weights is None else choice.log2_weights
        return Wanted(
            weight_bits,
            choice.activation_bits or scheme.activation_bits,
            exponents and weight_bits in LOG2_BITS,
            why_float,
        )

    def _matches(self, node: ir.Node, name: str) -> Iterable[tuple[str, LayerChoice]]:
        """The choices about `node`, the weakest first, and where each stands."""
        if node in self.first:
            yield "--first-layer", self.scheme.first_layer
        if node in self.last:
            yield "--last-layer", self.scheme.last_layer
        for glob, choice in self.scheme.layers.items():
            if fnmatchcase(name, glob):
                yield f'[layer."{glob}"]', choice


def _over(weak: LayerChoice, strong: LayerChoice) -> LayerChoice:
    """`weak`, but for what `strong` decides."""
    values = {entry.name: getattr(strong, entry.name) for entry in fields(strong)}
    return replace(weak, **{name: value for name, value in values.items() if value is not None})


def is_layer(node: ir.Node) -> bool:
    """Whether `node` is a layer with a weight of its own."""
    if node.domain or node.op_type not in LINEAR | {"MatMul"}:
        return False
    return constant(node.inputs[1]) is not None


def ends(model: ir.Model) -> tuple[frozenset[ir.Node], frozenset[ir.Node]]:
    """The first and the last layers with weights: several where branches begin or end apart."""
    nodes = list(model.graph)
    before: dict[ir.Node, bool] = {}  # whether a layer stands before
    for node in nodes:
        before[node] = any(_counts(maker, before) for maker in _makers(node))
    behind: dict[ir.Node, bool] = {}
    for node in reversed(nodes):
        readers = {reader for value in node.outputs for reader in value.consumers()}
        behind[node] = any(_counts(reader, behind) for reader in readers)
    layers = [node for node in nodes if is_layer(node)]
    return (
        frozenset(node for node in layers if not before[node]),
        frozenset(node for node in layers if not behind[node]),
    )


def _makers(node: ir.Node) -> set[ir.Node]:
    makers = (value.producer() for value in node.inputs if value is not None)
    return {maker for maker in makers if maker is not None}


def _counts(node: ir.Node, beyond: Mapping[ir.Node, bool]) -> bool:
    """Whether `node` is a layer, or there is one beyond it."""
    return is_layer(node) or beyond.get(node, False)

"""Which activation functions run as part of the layer in front of them, by a target's table.

    Conv → Relu              one operator where the target has the pair
    Conv → Add → Relu        one operator where it also adds a branch to a layer's sums

The graph keeps its nodes: what is fused, and what not and why, is read off it here, by planning
(no quantizer between a layer and its activation) and by `inspect`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qconvert.graph import is_output, sole_consumer
from qconvert.passes.choices import is_layer

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.plan import Fusion, Policy

__all__ = ["ACTIVATIONS", "Fused", "fusions", "is_fused"]

ACTIVATIONS: Final = frozenset(
    {
        "Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu",
        "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fused:
    """An activation function behind a layer, with or without an Add between them.

    Attributes:
        nodes: Names of layer, Add where there is one, and activation.
        pattern: Their operators, e.g. `Conv + Add + Relu`.
        why_not: Why it is an operator of its own; None: it runs within the layer.
    """

    nodes: tuple[str, ...]
    pattern: str
    why_not: str | None = None


def is_fused(maker: ir.Node, activation: ir.Node, policy: Policy) -> bool:
    """Whether `activation`, which alone reads `maker`, runs as part of it on the target."""
    return any(_takes(fusion, maker, activation) for fusion in policy.fused)


def _takes(fusion: Fusion, maker: ir.Node, activation: ir.Node) -> bool:
    known = "*" in fusion.layers or maker.op_type in fusion.layers
    known = known or (fusion.add and maker.op_type == "Add" and _layer_before(maker) is not None)
    return known and not activation.domain and activation.op_type in fusion.activations


def _layer_before(add: ir.Node) -> ir.Node | None:
    """The last layer whose sums alone go into `add`."""
    makers = [value.producer() for value in add.inputs if value is not None]
    found = [
        maker
        for maker in makers
        if maker is not None and is_layer(maker) and sole_consumer(maker.outputs[0]) is add
    ]
    return found[-1] if found else None


def fusions(model: ir.Model, policy: Policy) -> list[Fused]:
    """Every activation function behind a layer of the float model, in graph order."""
    found = []
    for node in model.graph:
        if node.domain or node.op_type not in ACTIVATIONS:
            continue
        source = node.inputs[0]
        maker = source.producer() if source is not None else None
        if source is None or maker is None:
            continue
        before = _layer_before(maker) if maker.op_type == "Add" and not maker.domain else None
        if before is None and not is_layer(maker):
            continue
        chain = (maker, node) if before is None else (before, maker, node)
        why_not = None
        if sole_consumer(source) is not node:
            why_not = f"'{source.name}' has other readers"
            if is_output(source):
                why_not = f"'{source.name}' is an output of the network"
        elif not is_fused(maker, node, policy):
            why_not = f"{policy.target} has no such operator"
        names = tuple(str(part.name) for part in chain)
        found.append(Fused(names, " + ".join(part.op_type for part in chain), why_not))
    return found

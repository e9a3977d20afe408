"""Decide what is quantized: a model, what the target can do, and what the user asks for.

Two kinds of target. Where only compute layers run on integers (`integer_graph` False), an
activation is quantized exactly when such a layer reads it. In an integer graph every activation
between operators of the policy is, except between a layer and the Relu or Clip that its hardware
fuses; at the rim (network outputs, and what only float operators read) `quantize_outputs` decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from qconvert.graph import constant, is_output, sole_consumer
from qconvert.passes.linear import LINEAR, output_axis
from qconvert.passes.quantize_weights import with_integer_weights
from qconvert.passes.rewrite import known_shape
from qconvert.passes.scheme_checks import check_inputs, check_names, check_widths
from qconvert.passes.signs import never_negative
from qconvert.passes.ties import tied
from qconvert.plan import ActivationSpec, Granularity, OpRule, Plan, PlannedLayer, Policy, Scheme

if TYPE_CHECKING:
    from qconvert.report import Report

__all__ = ["plan"]

_FUSED: Final = frozenset({"Relu", "Clip"})
"""Activation functions that only bound the codes of the layer before them."""


@dataclass(slots=True)
class _Draft:
    """What has been decided so far, in graph order.

    Attributes:
        layers: Planned layers.
        wishes: Value → the widths its readers want.
        kept_float: Node name → reason.
        nodes: Nodes of the policy that will run on integers.
    """

    layers: list[PlannedLayer] = field(default_factory=list)
    wishes: dict[ir.Value, list[int]] = field(default_factory=dict)
    kept_float: dict[str, str] = field(default_factory=dict)
    nodes: list[ir.Node] = field(default_factory=list)

    def wish(self, value: ir.Value, bits: int) -> None:
        """Note that `value` is to be quantized with `bits`."""
        self.wishes.setdefault(value, []).append(bits)


def plan(model: ir.Model, policy: Policy, scheme: Scheme, report: Report) -> Plan:
    """Make a plan for `model`; the model stays as it is.

    Args:
        model: The optimized float model.
        policy: What the target can run as integers.
        scheme: What the user asks for.
        report: Warned of patterns that match nothing and of widths that had to give way.

    Returns:
        The plan; layers and activations in topological order. Readers of one value that want
        different widths get the widest, as do values that share a scale.

    Raises:
        UsageError: If the target lacks a width that is asked for, or an input is named that does
            not exist.
    """
    check_widths(policy, scheme)
    check_inputs(scheme, [str(v.name) for v in model.graph.inputs if v.const_value is None])
    candidates = [node for node in model.graph if _rule(node, policy) is not None]
    named = [*candidates, *with_integer_weights(model, policy)]
    check_names(scheme, [str(node.name) for node in named], report)
    draft = _Draft()
    for node in candidates:
        rule = _rule(node, policy)
        assert rule is not None
        reason = _why_float(node, rule, policy, scheme)
        if reason is not None:
            draft.kept_float[str(node.name)] = reason
            continue
        draft.nodes.append(node)
        _include(node, rule, scheme, draft)
    if policy.integer_graph:
        _include_graph(model, policy, scheme, draft)
    return _finish(model, policy, scheme, draft, report)


def _rule(node: ir.Node, policy: Policy) -> OpRule | None:
    """The row of the policy that is about `node`."""
    rule = policy.rules.get(node.op_type) if not node.domain else None
    if rule is None or rule.role == "weights":
        return None
    if rule.role != "compute" and not policy.integer_graph:
        return None
    return rule


def _bits(node: ir.Node, scheme: Scheme) -> tuple[int, int]:
    """Widths of weight and input of `node`; of patterns that match, the last one counts."""
    matches = [
        bits for glob, bits in scheme.layer_bits.items() if fnmatchcase(str(node.name), glob)
    ]
    return (matches[-1], matches[-1]) if matches else (scheme.weight_bits, scheme.activation_bits)


def _why_float(node: ir.Node, rule: OpRule, policy: Policy, scheme: Scheme) -> str | None:
    """Why `node` does not run on integers although the policy knows its operator."""
    for glob in scheme.float_layers:
        if fnmatchcase(str(node.name), glob):
            return f"the user keeps it in float (--float {glob})"
    sources = node.inputs[:1] if rule.weights is not None else node.inputs
    activations = [value for value in sources if value is not None and _is_activation(value)]
    if not activations:
        return "its input is not a float activation"
    shape = known_shape(activations[0])
    if rule.ranks and (shape is None or len(shape) not in rule.ranks):
        rank = "unknown" if shape is None else str(len(shape))
        return f"{policy.target} has no integer {node.op_type} for inputs of rank {rank}"
    if rule.weights is not None and node.op_type in LINEAR | {"MatMul"}:
        return _why_not_weight(node, policy)
    return None


def _why_not_weight(node: ir.Node, policy: Policy) -> str | None:
    """Why the weight of a layer cannot be quantized ahead of time."""
    if node.op_type == "Gemm" and (
        node.attributes.get_int("transA", 0) != 0
        or node.attributes.get_float("alpha", 1.0) != 1.0
        or node.attributes.get_float("beta", 1.0) != 1.0
    ):
        return "its input is transposed or its product scaled"
    weight = node.inputs[1]
    if weight is None or weight.dtype != ir.DataType.FLOAT:
        return "its weight is not float"
    if constant(weight) is not None:
        shape = known_shape(weight)
        flat = node.op_type == "MatMul" and (shape is None or len(shape) != 2)
        return "its weight is not one matrix" if flat else None
    if node.op_type == "MatMul" and policy.integer_graph:
        return None
    return "its weight is computed at run time"


def _is_activation(value: ir.Value) -> bool:
    """Whether `value` is a float tensor of known shape that depends on the input.

    How many detections there are is known only when the network has run: such lists are results,
    not activations.
    """
    floats = constant(value) is None and value.dtype == ir.DataType.FLOAT
    return floats and known_shape(value) is not None


def _granularity(rule: OpRule, groups: int, outputs: int, scheme: Scheme) -> Granularity:
    """How fine weight scales are; the coarsest of the rule and the request."""
    if scheme.per_tensor or rule.weights == "tensor":
        return "tensor"
    return "group" if rule.weights == "group" and 1 < groups < outputs else "channel"


def _include(node: ir.Node, rule: OpRule, scheme: Scheme, draft: _Draft) -> None:
    """Plan a compute node: its weight, and its inputs."""
    if rule.role != "compute":
        return
    weight_bits, input_bits = _bits(node, scheme)
    if rule.weights is None or node.op_type not in LINEAR | {"MatMul"}:
        for value in node.inputs:
            if value is not None and _is_activation(value):
                draft.wish(value, input_bits)
        return
    source, weight = node.inputs[0], node.inputs[1]
    assert source is not None
    assert weight is not None
    draft.wish(source, input_bits)
    stored = constant(weight) is not None
    if not stored:
        draft.wish(weight, input_bits)
    groups = node.attributes.get_int("group", 1)
    outputs = (known_shape(weight) or (0,))[0] if node.op_type == "Conv" else 0
    draft.layers.append(
        PlannedLayer(
            node=str(node.name),
            op_type=node.op_type,
            input=str(source.name),
            output=str(node.outputs[0].name),
            weight=str(weight.name) if stored else None,
            weight_axis=1 if node.op_type == "MatMul" else output_axis(node),
            weight_bits=weight_bits,
            granularity=_granularity(rule, groups, outputs, scheme),
            groups=groups,
        )
    )


def _include_graph(model: ir.Model, policy: Policy, scheme: Scheme, draft: _Draft) -> None:
    """Add what an integer graph needs beyond the inputs of its compute layers."""
    nodes = set(draft.nodes)
    for node in tuple(model.graph) if policy.every_value else draft.nodes:
        bits = _bits(node, scheme)[1]
        values = [*(v for v in node.inputs if v is not None), *node.outputs]
        for value in values:
            if not _is_activation(value) or value in draft.wishes:
                continue
            if policy.every_value or not (_is_fused(value, nodes) or _is_rim(value, nodes, policy)):
                draft.wish(value, bits)


def _is_fused(value: ir.Value, nodes: set[ir.Node]) -> bool:
    """Whether `value` stands between an integer node and the activation function fused to it."""
    reader = sole_consumer(value)
    return value.producer() in nodes and reader is not None and reader.op_type in _FUSED


def _is_rim(value: ir.Value, nodes: set[ir.Node], policy: Policy) -> bool:
    """Whether nothing on integers reads `value` and it may leave in full precision."""
    if policy.quantize_outputs:
        return False
    return is_output(value) or not any(reader in nodes for reader in value.consumers())


def _finish(model: ir.Model, policy: Policy, scheme: Scheme, draft: _Draft, report: Report) -> Plan:
    """Settle widths and ties and put everything in graph order."""
    order = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    values = [value for value in order if value in draft.wishes]
    ties = tied(draft.nodes, policy, values) if policy.integer_graph else ()
    bits = _settle(values, ties, draft, report)
    positive = _unsigned(model, scheme, ties)
    activations = {
        str(value.name): ActivationSpec(
            bits=bits[str(value.name)],
            asymmetric=scheme.asymmetric,
            unsigned=str(value.name) in positive,
            fixed_scale=scheme.input_scales.get(str(value.name)),
        )
        for value in values
    }
    for name in scheme.input_scales:
        if name not in activations:
            report.warn(f"--input-scale {name} has no effect: nothing on integers reads it")
    return Plan(
        target=policy.target,
        layers=tuple(_share(draft.layers, report)),
        activations=activations,
        ties=ties,
        kept_float=draft.kept_float,
        every_reader=policy.integer_graph,
    )


def _settle(
    values: list[ir.Value], ties: tuple[tuple[str, ...], ...], draft: _Draft, report: Report
) -> dict[str, int]:
    """One width per value: the widest any reader wants, the same throughout a tie."""
    bits = {}
    for value in values:
        wishes = set(draft.wishes[value])
        bits[str(value.name)] = max(wishes)
        if len(wishes) > 1:
            report.warn(
                f"layers that read '{value.name}' want {sorted(wishes)} bits; it gets {max(wishes)}"
            )
    for group in ties:
        widest = max(bits[name] for name in group)
        bits.update(dict.fromkeys(group, widest))
    return bits


def _share(layers: list[PlannedLayer], report: Report) -> list[PlannedLayer]:
    """Give layers that share a weight one encoding: the widest and coarsest any of them needs."""
    readers: dict[str, list[PlannedLayer]] = {}
    for layer in layers:
        if layer.weight is not None:
            readers.setdefault(layer.weight, []).append(layer)
    result = []
    for layer in layers:
        others = readers.get(layer.weight or "", [layer])
        widths = {other.weight_bits for other in others}
        if len(widths) > 1:
            report.warn(
                f"layers that share '{layer.weight}' want {sorted(widths)} bits; "
                f"it gets {max(widths)}"
            )
        alike = {(other.weight_axis, other.granularity, other.groups) for other in others}
        result.append(
            replace(
                layer,
                weight_bits=max(widths),
                granularity=layer.granularity if len(alike) == 1 else "tensor",
            )
        )
    return result


def _unsigned(model: ir.Model, scheme: Scheme, ties: tuple[tuple[str, ...], ...]) -> set[str]:
    """Names that get unsigned codes: never negative, nor tied to something that is."""
    if not scheme.unsigned:
        return set()
    positive = never_negative(model.graph)
    for group in ties:
        if not positive.issuperset(group):
            positive.difference_update(group)
    return positive

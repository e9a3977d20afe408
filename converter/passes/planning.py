"""Decide what is quantized: a model, what the target can do, and what the user asks for.

Two kinds of target. Where only compute layers run on integers (`integer_graph` False), an
activation is quantized exactly when such a layer reads it. In an integer graph every activation
between operators of the policy is, except between a layer and the Relu or Clip that its hardware
fuses; at the rim (network outputs, and what only float operators read) `quantize_outputs` decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from qconvert.graph import constant, is_output, sole_consumer
from qconvert.passes.choices import Choices
from qconvert.passes.fusions import is_fused
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

_GATES: Final = frozenset({"Sigmoid", "HardSigmoid"})
"""Functions of x that, times x, are one function."""


@dataclass(slots=True)
class _Draft:
    """What has been decided so far, in graph order.

    Attributes:
        choices: What the user wants of each node.
        layers: Planned layers.
        wishes: Value → the widths its readers want.
        kept_float: Node name → reason.
        nodes: Nodes of the policy that will run on integers.
    """

    choices: Choices
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
        UnsupportedError: If the target lacks a kind of codes that is asked for.
    """
    check_widths(policy, scheme)
    check_inputs(scheme, [str(v.name) for v in model.graph.inputs if v.const_value is None])
    candidates = [node for node in model.graph if _rule(node, policy) is not None]
    named = [*candidates, *with_integer_weights(model, policy)]
    check_names(scheme, [str(node.name) for node in named], report)
    draft = _Draft(Choices.of(scheme, model))
    for node in candidates:
        rule = _rule(node, policy)
        assert rule is not None
        reason = draft.choices.wanted(node).why_float or _why_float(node, rule, policy)
        if reason is not None:
            draft.kept_float[str(node.name)] = reason
            continue
        draft.nodes.append(node)
        _include(node, rule, policy, scheme, draft)
    if policy.integer_graph:
        _include_graph(model, policy, draft)
    result = _finish(model, policy, scheme, draft, report)
    return result if policy.placement is None else policy.placement.settle(model, result)


def _rule(node: ir.Node, policy: Policy) -> OpRule | None:
    """The row of the policy that is about `node`."""
    rule = policy.rules.get(node.op_type) if not node.domain else None
    if rule is None or rule.role == "weights":
        return None
    if rule.role != "compute" and not policy.integer_graph:
        return None
    return rule


def _why_float(node: ir.Node, rule: OpRule, policy: Policy) -> str | None:
    """Why `node` cannot run on integers although the policy knows its operator."""
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


def _include(node: ir.Node, rule: OpRule, policy: Policy, scheme: Scheme, draft: _Draft) -> None:
    """Plan a compute node: its weight, and its inputs."""
    if rule.role != "compute":
        return
    wanted = draft.choices.wanted(node)
    if rule.weights is None or node.op_type not in LINEAR | {"MatMul"}:
        for value in node.inputs:
            if value is not None and _is_activation(value) and not _is_gate(value, policy):
                draft.wish(value, wanted.input_bits)
        return
    source, weight = node.inputs[0], node.inputs[1]
    assert source is not None
    assert weight is not None
    draft.wish(source, wanted.input_bits)
    stored = constant(weight) is not None
    if not stored:
        draft.wish(weight, wanted.input_bits)
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
            weight_bits=wanted.weight_bits,
            granularity=_granularity(rule, groups, outputs, scheme),
            groups=groups,
            log2=wanted.log2,
        )
    )


def _include_graph(model: ir.Model, policy: Policy, draft: _Draft) -> None:
    """Add what an integer graph needs beyond the inputs of its compute layers."""
    nodes = set(draft.nodes)
    for node in tuple(model.graph) if policy.every_value else draft.nodes:
        bits = draft.choices.wanted(node).input_bits
        values = [*(v for v in node.inputs if v is not None), *node.outputs]
        for value in values:
            if not _is_activation(value) or value in draft.wishes or _is_gate(value, policy):
                continue
            if policy.every_value or not (
                _is_fused(value, nodes, policy) or _is_rim(value, nodes, policy)
            ):
                draft.wish(value, bits)


def _is_fused(value: ir.Value, nodes: set[ir.Node], policy: Policy) -> bool:
    """Whether `value` stands between an integer node and the activation function fused to it."""
    maker, reader = value.producer(), sole_consumer(value)
    return maker in nodes and reader is not None and is_fused(maker, reader, policy)


def _is_gate(value: ir.Value, policy: Policy) -> bool:
    """Whether `value` is the Sigmoid(x) of x * Sigmoid(x): one function of x, and one table."""
    gate, product = value.producer(), sole_consumer(value)
    if policy.every_value or gate is None or product is None or product.op_type != "Mul":
        return False
    known = gate.op_type in policy.rules and "Mul" in policy.rules
    return known and gate.op_type in _GATES and gate.inputs[0] in product.inputs


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
    results: list[str] = []
    if policy.output_bits is not None:
        results = _results(values, ties, policy, draft)
        bits.update(dict.fromkeys(results, scheme.output_bits or policy.output_bits))
    positive = _unsigned(model, scheme, ties)
    activations = {
        str(value.name): ActivationSpec(
            bits=bits[str(value.name)],
            asymmetric=scheme.asymmetric,
            unsigned=str(value.name) in positive,
            fixed_scale=scheme.input_scales.get(str(value.name)),
            result=str(value.name) in results,
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
        power_of_two=scheme.power_of_two,
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


def _results(
    values: list[ir.Value], ties: tuple[tuple[str, ...], ...], policy: Policy, draft: _Draft
) -> list[str]:
    """Names of what leaves the integer graph and is on no scale with what stays in it."""
    nodes = set(draft.nodes)
    inside = {
        str(value.name)
        for node in draft.nodes
        if policy.rules[node.op_type].role == "compute"
        for value in node.inputs
        if value is not None
    }
    leaving = {
        str(value.name)
        for value in values
        if value.producer() is not None
        and (is_output(value) or not nodes.issuperset(value.consumers()))
    }
    tied_names = {name for group in ties for name in group}
    groups = [*ties, *((str(v.name),) for v in values if str(v.name) not in tied_names)]
    return [
        name
        for group in groups
        if leaving.intersection(group) and inside.isdisjoint(group)
        for name in group
    ]


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
                log2=all(other.log2 for other in others),
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

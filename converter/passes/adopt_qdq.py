"""Carry the quantization that a model brings along over to a target, without calibration data.

Where a target runs only compute layers on integers, what counts is the grid of each layer's input.
A pair that stands further up reaches the layer through operators that commute with it, those that
only choose among values or move them:

    op(dq(q(x))) = dq(q(op(x)))      for MaxPool, Relu, Reshape, Transpose, ..., and for a Clip
                                     whose bounds lie on the grid

Operators that the target's policy does not know read the float value: pairs in front of them have
no place in the target and go, which the report says. In an integer graph all pairs stay. Either
way, what a target cannot express becomes the nearest thing it can: a zero point goes (symmetric
codes that cover the same range), weights lose theirs exactly where the shifted codes fit, scales
finer than the target's become the coarsest among them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from onnx_ir.passes import common

from qconvert.graph import constant, is_output
from qconvert.passes.adopt_weights import adopt_weight
from qconvert.passes.insert_qdq import Writer
from qconvert.passes.merge_quantizers import grid
from qconvert.passes.read_qdq import restore_weight
from qconvert.passes.rewrite import absorb, known_shape, names_in
from qconvert.qdq import codes_of, pair_of
from qconvert.quant import QParams, symmetric

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.plan import OpRule, Policy
    from qconvert.report import Report

__all__ = ["adopt_qdq"]

_COMMUTING: Final = frozenset(
    {
        "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GlobalMaxPool", "Identity",
        "MaxPool", "Relu", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators that commute with rounding to any grid that holds 0: they choose and move values."""


@dataclass(slots=True)
class _Adoption:
    """One model on its way to a target.

    Attributes:
        graph: The copy that is being changed.
        policy: What the target can do.
        report: Told what has no place.
        writer: Adds pairs.
        grids: Float value → the grid its values lie on.
        moved: Float value → the output of a pair added for it.
    """

    graph: ir.Graph
    policy: Policy
    report: Report
    writer: Writer
    grids: dict[ir.Value, QParams] = field(default_factory=dict)
    moved: dict[ir.Value, ir.Value] = field(default_factory=dict)


def adopt_qdq(model: ir.Model, policy: Policy, report: Report) -> ir.Model:
    """A copy of an optimized Q/DQ model in which every pair is one the target can carry out.

    Args:
        model: With Q/DQ nodes, as `optimize` leaves it.
        policy: What the target can run as integers.
        report: Warned of pairs that had to go and of scales that had to change.

    Returns:
        A model whose compute layers either have a quantized input and codes for weights, or are
        float. It is not quantized at all when no layer could be kept.
    """
    copy = model.clone()
    graph = copy.graph
    job = _Adoption(graph, policy, report, Writer(copy, names_in(graph)))
    _express(job)
    job.grids.update(_grids(graph))
    for node in tuple(graph):
        rule = policy.rules.get(node.op_type) if not node.domain else None
        if rule is None or rule.role == "weights":
            continue  # nothing about its input is known ahead of time
        if rule.weights is not None and len(node.inputs) > 1:
            _adopt_layer(job, node, rule)
    if not policy.integer_graph:
        _clear(job)
    common.RemoveUnusedNodesPass()(copy)
    if policy.placement is not None:
        policy.placement.arrange(copy, report)
    return copy


def _express(job: _Adoption) -> None:
    """Give symmetric grids of a known width to pairs that the target has no codes for."""
    changed = []
    for node in tuple(job.graph):
        pair = pair_of(node.outputs[0]) if node.op_type == "DequantizeLinear" else None
        if pair is None or pair.params.symmetric or job.policy.asymmetric:
            continue
        result = job.writer.activation(pair.source, _symmetric(pair.params))
        name = pair.source.name
        replaces = is_output(pair.output)
        old = pair.output.name
        pair.output.replace_all_uses_with(result, replace_graph_outputs=True)
        job.graph.remove(node, safe=True)
        if replaces:
            result.name = old
        changed.append(f"'{name}'")
    if changed:
        job.report.warn(
            f"{job.policy.target} has no zero points: {len(changed)} activations get symmetric "
            f"codes of the same range ({', '.join(changed[:4])}"
            f"{', ...' if len(changed) > 4 else ''})"
        )


def _symmetric(params: QParams) -> QParams:
    """Symmetric parameters that cover what `params` covers."""
    low = float(params.scale) * float(params.low - params.zero_point)
    return symmetric(max(-low, float(params.threshold)), bits=params.bits)


def _adopt_layer(job: _Adoption, node: ir.Node, rule: OpRule) -> None:
    """Bring one compute layer into the target's form, or back to float."""
    source = node.inputs[0]
    assert source is not None
    reason = _why_float(job, node, rule)
    if reason is None:
        reason = adopt_weight(node, rule, job.policy, job.report)
    if reason is None and pair_of(source) is None:
        node.replace_input_with(0, _pair_after(job, source))
    if reason is None:
        return
    codes = codes_of(node.inputs[1])
    if codes is not None:
        job.report.kept("adopt_qdq", str(node.name), reason)
        restore_weight(job.graph, codes)
    if not job.policy.integer_graph:
        pair = pair_of(source)
        if pair is not None:
            node.replace_input_with(0, pair.source)


def _why_float(job: _Adoption, node: ir.Node, rule: OpRule) -> str | None:
    """Why a layer cannot run on integers with what the model says."""
    source = node.inputs[0]
    shape = known_shape(source)
    if rule.ranks and (shape is None or len(shape) not in rule.ranks):
        return f"{job.policy.target} has no integer {node.op_type} for this input"
    if codes_of(node.inputs[1]) is None and pair_of(node.inputs[1]) is None:
        return "the model has no codes for its weight"
    found = job.grids.get(source) if source is not None else None
    if found is None:
        return "the model has no scale for its input"
    if found.bits not in job.policy.activation_bits:
        return f"{job.policy.target} has no {found.bits}-bit activations"
    return None


def _grids(graph: ir.Graph) -> dict[ir.Value, QParams]:
    """Float value → the grid its values lie on, through operators that commute with it."""
    grids: dict[ir.Value, QParams] = {}
    for node in graph:
        if node.domain or not node.outputs:
            continue
        pair = pair_of(node.outputs[0])
        found = pair.params if pair is not None else _inherited(node, grids)
        if found is not None:
            grids.update(dict.fromkeys(node.outputs, found))
    return grids


def _inherited(node: ir.Node, grids: dict[ir.Value, QParams]) -> QParams | None:
    """The grid that `node` hands on from its inputs."""
    first = node.inputs[0] if node.inputs else None
    found = grids.get(first) if first is not None else None
    if found is None:
        return None
    if node.op_type == "Concat":
        others = [grids.get(part) if part is not None else None for part in node.inputs]
        same = all(other is not None and grid(other) == grid(found) for other in others)
        return found if same else None
    if node.op_type == "Clip":
        return found if _on_grid(node.inputs[1:], found) else None
    if node.op_type == "Pad":
        fills = node.attributes.get_string("mode", "constant") == "constant"
        return None if fills and not _on_grid(node.inputs[2:3], found) else found
    return found if node.op_type in _COMMUTING else None


def _on_grid(bounds: Sequence[ir.Value | None], params: QParams) -> bool:
    """Whether bounds are values of codes, or lie beyond all of them."""
    for value in bounds:
        if value is None:
            continue
        bound = constant(value)
        if bound is None or bound.size != 1:
            return False
        code = float(bound.reshape(())[()]) / float(params.scale) + int(params.zero_point)
        if params.low < code < params.high and abs(code - round(code)) > 1e-4:
            return False
    return True


def _pair_after(job: _Adoption, value: ir.Value) -> ir.Value:
    """A pair right behind `value`, on the grid its values lie on."""
    if value not in job.moved:
        job.moved[value] = job.writer.activation(value, job.grids[value])
    return job.moved[value]


def _clear(job: _Adoption) -> None:
    """Remove every pair at an operator that the policy does not know."""
    gone: dict[str, int] = {}
    for node in tuple(job.graph):
        pair = pair_of(node.outputs[0]) if node.op_type == "DequantizeLinear" else None
        if pair is None:
            continue
        for use in tuple(pair.output.uses()):
            if _takes(use.node, use.idx, job.policy):
                continue
            use.node.replace_input_with(use.idx, pair.source)
            if use.node.op_type not in _COMMUTING:
                gone[use.node.op_type] = gone.get(use.node.op_type, 0) + 1
        if is_output(pair.output) and pair.source.producer() and not is_output(pair.source):
            gone["network output"] = gone.get("network output", 0) + 1
            absorb(node, pair.source)
    if gone:
        places = ", ".join(f"{kind} ({count})" for kind, count in sorted(gone.items()))
        job.report.warn(
            f"{job.policy.target} computes these in float, without the rounding the model has "
            f"at their inputs: {places}"
        )


def _takes(node: ir.Node, index: int, policy: Policy) -> bool:
    """Whether the target has a place for a pair at input `index` of `node`."""
    rule = policy.rules.get(node.op_type) if not node.domain else None
    if rule is None or rule.role == "weights" or rule.weights is None:
        return rule is not None and rule.role != "weights"
    if codes_of(node.inputs[1]) is not None:
        return index == 0
    return all(pair_of(value) is not None for value in node.inputs[:2])

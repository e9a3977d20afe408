"""The device check of `inspect --to TARGET`: what will run on integers there, and what not and why.

Nothing is converted: the plan of a conversion is made and read out. With calibration data it is
also measured which tensors are too wide for their codes (see `qconvert.calibration.spread`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from qconvert.calibration import spread
from qconvert.passes.adopt_qdq import adopt_qdq
from qconvert.passes.choices import Choices, is_layer
from qconvert.passes.fusions import fusions
from qconvert.passes.quantize_weights import why_not, with_integer_weights
from qconvert.passes.read_qdq import weight_name
from qconvert.pipeline.models import equalize, equalizes, planned, prepared, settings
from qconvert.pipeline.targets import target
from qconvert.qdq import codes_of, pair_of
from qconvert.report import Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir

    from qconvert.calibration.spread import Spread
    from qconvert.dataset.reader import Dataset
    from qconvert.passes.fusions import Fused
    from qconvert.pipeline.models import Models
    from qconvert.plan import Plan, Policy
    from qconvert.progress import Progress
    from qconvert.recipe import Recipe

__all__ = ["Check", "check"]


@dataclass(frozen=True, slots=True)
class Check:
    """What a target will make of a model.

    Attributes:
        integers: Layer → `int8` and the like, or `float: ` and why.
        fusions: Activation functions behind layers: nodes, pattern, and why they stay apart
            (None: they run within the layer).
        shared_weights: Weights that several layers read, with these layers.
        shared_scales: Groups of values that have one scale.
        too_wide: With calibration data: tensors whose values are too far apart for their codes,
            the worst first, with figures and what to do; None without data.
    """

    integers: Mapping[str, str]
    fusions: Sequence[Mapping[str, Any]]
    shared_weights: Sequence[Mapping[str, Any]]
    shared_scales: Sequence[Sequence[str]]
    too_wide: Sequence[Mapping[str, Any]] | None


def check(
    models: Models, recipe: Recipe, dataset: Dataset | None, report: Report, progress: Progress
) -> Check:
    """Plan a conversion to `recipe.to` and say what it will do.

    Args:
        models: As `optimized` gives them; they stay as they are.
        recipe: The target and what is wanted of its layers.
        dataset: Calibration data; None: distributions are not measured.
        report: For warnings.
        progress: Told of passes over the data.

    Raises:
        UsageError: If the target lacks what is asked for.
        CalibrationError: If the data are not finite.
    """
    backend = target(recipe.to)
    copies = prepared(_copied(models), backend, recipe, report)
    model = copies.float_model
    if models.quantized:
        if dataset is not None:
            report.warn("the model brings its own scales: its distributions are not measured")
        return _adopted(copies, backend.policy)
    if dataset is not None and equalizes(recipe):
        equalize(model, dataset, recipe, Report())
    layout = planned(model, backend.policy, recipe, report)
    found = None
    if dataset is not None:
        tensors = spread.of_weights(model, layout)
        tensors += spread.of_activations(model, layout, dataset, settings(recipe), progress)
        found = _too_wide(tensors, backend.policy)
    fused = fusions(model, backend.policy)
    integers = _integers(model, layout, backend.policy, fused)
    return Check(
        integers | _weights_alone(model, backend.policy, recipe),
        [asdict(each) for each in fused],
        _shared((layer.weight, layer.node) for layer in layout.layers if layer.weight),
        [list(group) for group in layout.ties],
        found,
    )


def _copied(models: Models) -> Models:
    """The same models, free to be changed."""
    float_model = models.float_model.clone()
    return replace(
        models,
        float_model=float_model,
        model=models.model.clone() if models.quantized else float_model,
    )


def _adopted(models: Models, policy: Policy) -> Check:
    """The check of a model that comes quantized."""
    report = Report()
    model = models.model if policy.free_placement else adopt_qdq(models.model, policy, report)
    reasons = {note.node: note.why_not for note in report.notes if note.why_not is not None}
    integers, weights = {}, []
    for node in model.graph:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and not node.domain:
            continue
        pair = pair_of(node.inputs[0]) if node.inputs else None
        codes = codes_of(node.inputs[1]) if len(node.inputs) > 1 else None
        name = str(node.name)
        if pair is not None and codes is not None:
            integers[name] = _widths(codes.params.bits, pair.params.bits)
            weights.append((weight_name(codes), name))
        else:
            why = reasons.get(name) or _no_kernel(node, policy)
            if name not in reasons and is_layer(node) and codes is None:
                why = "the model has no codes for its weight"
            integers[name] = f"float: {why}"
    fused = fusions(models.float_model, policy)
    return Check(integers, [asdict(each) for each in fused], _shared(weights), [], None)


def _integers(
    model: ir.Model, layout: Plan, policy: Policy, fused: Sequence[Fused]
) -> dict[str, str]:
    """Layer → how it will run."""
    planned_layers = {layer.node: layer for layer in layout.layers}
    within = {each.nodes[-1]: each.nodes[0] for each in fused if each.why_not is None}
    found = {}
    for node in model.graph:
        name = str(node.name)
        layer = planned_layers.get(name)
        rule = policy.rules.get(node.op_type) if not node.domain else None
        if layer is not None:
            width = layout.activations[layer.input].bits
            found[name] = _widths(layer.weight_bits, width, exponents=layer.log2)
        elif name in layout.kept_float:
            found[name] = f"float: {layout.kept_float[name]}"
        elif name in within and within[name] in planned_layers:
            found[name] = f"within '{within[name]}'"
        elif rule is not None and policy.integer_graph:
            found[name] = {
                "aligned": "integers, one scale on all sides",
                "inherits": "integers, handed on",
                "compute": "integers",
            }[rule.role]
        else:
            found[name] = f"float: {_no_kernel(node, policy)}"
    return found


def _weights_alone(model: ir.Model, policy: Policy, recipe: Recipe) -> dict[str, str]:
    """Layers of which the weights are integers and the inputs are rounded as they come."""
    choices, found = Choices.of(recipe.scheme, model), {}
    for node in with_integer_weights(model, policy):
        why = why_not(node, choices)
        bits = choices.wanted(node).weight_bits
        found[str(node.name)] = f"int{bits} weights" if why is None else f"float: {why}"
    return found


def _no_kernel(node: ir.Node, policy: Policy) -> str:
    """Why an operator that no plan names is float."""
    if not node.domain and node.op_type in policy.rules:
        return f"{policy.target} rounds what its layers read, not what {node.op_type} does"
    return f"{policy.target} has no integer {node.op_type}"


def _widths(weights: int, activation: int, *, exponents: bool = False) -> str:
    """How wide the numbers of one layer are."""
    if weights == activation and not exponents:
        return f"int{weights}"
    first = f"exponents of {weights} bits as" if exponents else f"int{weights}"
    return f"{first} weights, int{activation} input"


def _shared(pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Weights with several readers."""
    readers: dict[str, list[str]] = {}
    for weight, layer in pairs:
        readers.setdefault(weight, []).append(layer)
    return [{"weight": k, "layers": v} for k, v in readers.items() if len(v) > 1]


def _too_wide(tensors: Iterable[Spread], policy: Policy) -> list[dict[str, Any]]:
    """What does not fit, the worst first."""
    wide = sorted((t for t in tensors if t.too_wide), key=lambda t: (t.snr_db or 0.0) - 60 * t.lost)
    return [{**asdict(tensor), "fix": _fix(tensor, policy)} for tensor in wide]


def _fix(tensor: Spread, policy: Policy) -> str:
    """The options that help."""
    if not tensor.layers:
        return ""
    finer = 16 in policy.weight_bits & policy.activation_bits and tensor.bits < 16
    options = (
        f"--layer-bits '{name}=16'" if finer else f"--float '{name}'" for name in tensor.layers
    )
    return " ".join(options)

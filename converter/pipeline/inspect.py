"""`inspect`: what a model is, what it costs, and what each target can do with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from qconvert.backends import BACKENDS
from qconvert.cost import macs, parameters
from qconvert.graph import PLACE, input_shapes
from qconvert.passes.planning import plan
from qconvert.passes.quantize_weights import why_not, with_integer_weights
from qconvert.pipeline.load import load, recognize
from qconvert.pipeline.models import optimized
from qconvert.pipeline.targets import target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.recipe import Recipe
    from qconvert.report import Report

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a model is.

    Attributes:
        format: The frontend that read it.
        inputs: Name and shape of each network input.
        outputs: Name and shape of each network output; -1 for a size that depends on the data.
        layers: One row per node of the optimized graph.
        macs: Multiply-accumulates of one inference.
        parameters: Trained values.
        unsupported: Target → what it cannot express.
        integers: With a target: layer → `int8` and the like, or why it stays float.
        notes: What the passes did and declined.
    """

    format: str
    inputs: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]
    layers: Sequence[Mapping[str, Any]]
    macs: int
    parameters: int
    unsupported: Mapping[str, Sequence[str]]
    integers: Mapping[str, str]
    notes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """The keys of `inspect --json`."""
        return asdict(self)


def inspect(files: Sequence[Path], recipe: Recipe, report: Report) -> Inspection:
    """Read and optimize a model and describe it; weights may be left out.

    Raises:
        QconvertError: If the model cannot be read.
    """
    frontend, source = recognize(files)
    bare = bool(frontend.weight_suffixes) and source.weights is None
    if bare:
        report.warn("no weights given: shapes and cost are right, values are random")
    loaded = load(files, replace(recipe.reading, random_weights=bare), report)
    models = optimized(loaded.model, report)
    model = models.float_model
    return Inspection(
        format=loaded.frontend,
        inputs=[{"name": k, "shape": list(v)} for k, v in input_shapes(model).items()],
        outputs=[{"name": v.name, "shape": _dimensions(v)} for v in model.graph.outputs],
        layers=[_layer(node) for node in model.graph],
        macs=sum(macs(node) for node in model.graph),
        parameters=parameters(model),
        unsupported={
            name: [str(problem) for problem in backend.problems(model)]
            for name, backend in BACKENDS.items()
        },
        integers={} if recipe.to is None else _integers(model, recipe, report),
        notes=[str(note) for note in report.notes],
    )


def _layer(node: ir.Node) -> dict[str, Any]:
    """One row of the layer list."""
    return {
        "name": node.name,
        "type": node.op_type,
        "at": node.metadata_props.get(PLACE, ""),
        "outputs": [value.name for value in node.outputs],
        "shape": _dimensions(node.outputs[0]),
        "macs": macs(node),
    }


def _dimensions(value: ir.Value) -> list[int]:
    """A shape; -1 where it depends on the data."""
    if value.shape is None:
        return []
    return [dim if isinstance(dim, int) else -1 for dim in value.shape]


def _integers(model: ir.Model, recipe: Recipe, report: Report) -> dict[str, str]:
    """Layer → how it will run on the recipe's target."""
    layout = plan(model, target(recipe.to).policy, recipe.scheme, report)
    widths = {
        layer.node: _widths(layer.weight_bits, layout.activations[layer.input].bits)
        for layer in layout.layers
    }
    for node in with_integer_weights(model, target(recipe.to).policy):
        why = why_not(node, recipe.scheme)
        bits = recipe.scheme.weight_bits
        widths[str(node.name)] = f"int{bits} weights" if why is None else f"float: {why}"
    return widths | {name: f"float: {why}" for name, why in layout.kept_float.items()}


def _widths(weights: int, activation: int) -> str:
    """How wide the numbers of one layer are."""
    same = weights == activation
    return f"int{weights}" if same else f"int{weights} weights, int{activation} input"

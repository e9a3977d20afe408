"""`inspect`: what a model is, what it costs, and what each target can do with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from qconvert.backends import BACKENDS
from qconvert.content import read_graph
from qconvert.cost import macs, parameters
from qconvert.errors import UsageError
from qconvert.graph import PLACE, input_shapes
from qconvert.pipeline.check import check
from qconvert.pipeline.data import dataset_for
from qconvert.pipeline.load import load, recognize
from qconvert.pipeline.models import optimized
from qconvert.pipeline.targets import target
from qconvert.progress import Quiet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.pipeline.check import Check
    from qconvert.pipeline.load import Loaded
    from qconvert.progress import Progress
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
        lint: With a target, for a model that comes quantized: what the target will not like.
        check: With a target: what else it will make of the model (`Check`, without `integers`).
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
    lint: Sequence[str] = ()
    check: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The keys of `inspect --json`."""
        return asdict(self)


def inspect(
    files: Sequence[Path],
    recipe: Recipe,
    report: Report,
    calib: Path | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Read and optimize a model and describe it; weights may be left out.

    Args:
        files: MODEL [WEIGHTS].
        recipe: How to read it; with `to`, the conversion that is looked into.
        report: For warnings and notes of passes.
        calib: Data to measure distributions on, for `recipe.to`.
        progress: Told of passes over the data.

    Raises:
        QconvertError: If the model cannot be read, the data does not fit, or the target lacks
            what the recipe asks for.
    """
    if calib is not None and recipe.to is None:
        raise UsageError(
            "distributions are measured for a target",
            why="which tensors get codes, and of which width, differs between targets",
            fix=f"add --to {next(iter(BACKENDS))}",
        )
    frontend, source = recognize(files)
    bare = bool(frontend.weight_suffixes) and source.weights is None
    if bare:
        report.warn("no weights given: shapes and cost are right, values are random")
    loaded = load(files, replace(recipe.reading, random_weights=bare), report)
    models = optimized(loaded.model, report)
    model = models.float_model
    found = None
    if recipe.to is not None:
        dataset = None
        if calib is not None:
            dataset = dataset_for(loaded.model, calib, recipe.preprocess, jobs=recipe.jobs)
        found = check(models, recipe, dataset, report, progress or Quiet())
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
        integers={} if found is None else found.integers,
        notes=[str(note) for note in report.notes],
        lint=_findings(loaded, recipe) if models.quantized else [],
        check=None if found is None else _besides_integers(found),
    )


def _findings(loaded: Loaded, recipe: Recipe) -> list[str]:
    """What the recipe's target says of a quantized file as it stands, before any pass."""
    lint = None if recipe.to is None else target(recipe.to).lint
    if lint is None or loaded.frontend != "onnx":
        return []
    return [str(finding) for finding in lint(read_graph(loaded.source.model, "the model"))]


def _besides_integers(found: Check) -> dict[str, Any]:
    """The other parts of a check."""
    return {key: value for key, value in asdict(found).items() if key != "integers"}


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

"""Where an artifact leaves the network it was made from: the first value that is another one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from qconvert.graph import describe
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs
from qconvert.verification.metrics import cosine, finite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from qconvert.quant import F32
    from qconvert.verification.stepwise import Tapped

__all__ = ["Departure", "Stats", "first_departure"]

_AT_ONCE = 64  # values read in one run: all of a large network at once would not fit


@dataclass(frozen=True, slots=True)
class Stats:
    """What a tensor looks like; a figure that is not finite is None.

    Attributes:
        minimum: Smallest element.
        maximum: Largest element.
        mean: Their mean.
        std: Standard deviation.
    """

    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None

    @classmethod
    def of(cls, array: F32) -> Stats:
        """The figures of an array; all None for an empty one."""
        wide = np.asarray(array, dtype=np.float64)
        if not wide.size:
            return cls(None, None, None, None)
        with np.errstate(invalid="ignore", over="ignore"):
            return cls(*(finite(float(f(wide))) for f in (np.min, np.max, np.mean, np.std)))

    @override
    def __str__(self) -> str:
        figures = (("min", self.minimum), ("max", self.maximum), ("mean", self.mean))
        words = [
            f"{name} {'not finite' if value is None else format(value, '.4g')}"
            for name, value in (*figures, ("std", self.std))
        ]
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Departure:
    """The first value, in the order of the network, that leaves the tolerance.

    Attributes:
        value: Its name.
        layer: Who makes it, as messages name it.
        cosine: Of both tensors; None where it is not finite.
        wanted: The tensor as it should be.
        given: As the artifact has it.
    """

    value: str
    layer: str
    cosine: float | None
    wanted: Stats
    given: Stats

    @classmethod
    def of(cls, value: str, layer: str, wanted: F32, given: F32) -> Departure:
        """Measure two tensors of one size."""
        found = finite(cosine(wanted, given))
        return cls(value, layer, found, Stats.of(wanted), Stats.of(given))

    @override
    def __str__(self) -> str:
        measured = "not finite" if self.cosine is None else f"{self.cosine:.6f}"
        return (
            f"{self.layer} is the first to leave it: '{self.value}' has cosine {measured}, should "
            f"have {self.wanted}, has {self.given}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and texts."""
        return asdict(self)


def first_departure(
    model: ir.Model, artifact: Tapped, inputs: Mapping[str, F32], above: float
) -> Departure | None:
    """Run a float model and its artifact and compare whatever both have, in order.

    Args:
        model: The float model.
        artifact: Shows inner values by the model's names. Codes are passed over.
        inputs: One sample.
        above: The least cosine, itself not enough.

    Returns:
        None when every value agrees.
    """
    names = [
        str(value.name)
        for node in model.graph
        for value in node.outputs
        if value.name in artifact.values and value.shape is not None and value.shape.is_static()
    ]
    titles = {str(v.name): describe(node) for node in model.graph for v in node.outputs}
    for start in range(0, len(names), _AT_ONCE):
        found = _first(model, artifact, inputs, names[start : start + _AT_ONCE], above)
        if found is not None:
            name, wanted, given = found
            return Departure.of(name, titles[name], wanted, given)
    return None


def _first(
    model: ir.Model,
    artifact: Tapped,
    inputs: Mapping[str, F32],
    names: Sequence[str],
    above: float,
) -> tuple[str, F32, F32] | None:
    """The first of a few values that is not what it should be."""
    with OnnxRuntime(with_outputs(model, names), optimize=False) as runtime:
        wanted = runtime.run(inputs)
    given = artifact.tap(inputs, names)
    for name in names:
        comparable = not given[name].codes and given[name].values.size == wanted[name].size
        if comparable and not cosine(wanted[name], given[name].values) > above:
            return name, wanted[name], given[name].values
    return None

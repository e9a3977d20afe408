"""EasyQuant: scales that maximize the cosine between float and quantized layer outputs.

The published method (Wu et al. 2020, arXiv:2006.16669): layer by layer, the input coming from the
already quantized prefix and the target from the float network, first the weight scales of all
output channels, then the activation's scale, each from candidates around a start, repeated until
the cosine stops growing.

`eq_mode="paper"` does just that. The default mode keeps the objective and changes what it costs
and where it looks: one walk over the network with both sides alive, sampled output positions,
Gram matrices for weight candidates, activation scales from coarse to fine, one scale for all the
layers that read an activation, scale and zero point together where there is one. Weights are then
fitted to their rounded input and rounded by output error, as far as asked for. The whole output
of every layer, and in the end of the whole network, has the last word: where it is not better
than the start's, the start stays.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np
from typing_extensions import override

from qconvert.calibration.easyquant.decider import Search
from qconvert.calibration.easyquant.effort import budget
from qconvert.calibration.easyquant.paper import PaperSearch
from qconvert.calibration.easyquant.reader import mean_cosine
from qconvert.calibration.easyquant.walk import Decider, Walk
from qconvert.calibration.result import Calibrated
from qconvert.dataset.reader import Dataset
from qconvert.errors import CalibrationError
from qconvert.quant import Encodings
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt
    import onnx_ir as ir

    from qconvert.calibration.easyquant.scratch import Kept
    from qconvert.calibration.settings import Settings
    from qconvert.dataset.samples import Sample
    from qconvert.plan import Plan, PlannedLayer
    from qconvert.progress import Progress
    from qconvert.quant import F32
    from qconvert.report import Report

__all__ = ["search"]

_DIGITS: Final = 16  # behind the point, of a float below 1
_DISTANT: Final = 2048  # values per sample that stand for an activation the walk has not reached


def search(  # noqa: PLR0913, PLR0917 - the engine's arguments, and a start
    model: ir.Model,
    plan: Plan,
    dataset: Iterable[Sample],
    start: Encodings,
    settings: Settings,
    report: Report,
    progress: Progress,
) -> Calibrated:
    """Find scales for everything `plan` names, from `start`.

    Args:
        model: The optimized float model; it is not changed.
        plan: What is quantized.
        dataset: At least one sample; `settings.search_images` of them are looked at.
        start: Encodings of everything the plan names.
        settings: `effort`, `eq_mode`, `eq_rounds`, `seed`, `threads` and refinements.
        report: Is told when the start is kept.
        progress: One step per planned layer.

    Returns:
        Encodings no worse on the samples than `start`, by the cosine of the network's outputs,
        and a row per planned layer.

    Raises:
        CalibrationError: If there is no sample.
    """
    samples = [sample.inputs for sample in _spread(dataset, settings.search_images)]
    if not samples:
        raise CalibrationError("there are no calibration data", fix="give at least one sample")
    progress.start("searching scales", len(plan.layers))
    distant = _distant(model, plan, samples, settings)
    kind = PaperSearch if settings.eq_mode == "paper" else Search
    decider = kind(plan, start, budget(settings), settings.seed, distant, progress)
    walk = Walk(model, plan, Encodings(), samples, threads=settings.threads)
    walk.run(decider)
    goals = {name: walk.exact(name) for name in walk.judged}
    choices = [(walk.encodings, _network(goals, walk))]
    scales = Encodings(walk.encodings.activations, walk.encodings.weights)
    refined = bool(walk.encodings.biases or walk.encodings.rounded)
    for encodings in (scales, start) if refined else (start,):
        again = Walk(model, plan, encodings, samples, threads=settings.threads, floats=False)
        again.run(_Settled())
        choices.append((encodings, _network(goals, again)))
    progress.finish()
    # Of equals the first: refined, then searched, then the start.
    best, cosine = max(choices, key=lambda choice: choice[1])
    if best is not walk.encodings:
        what = "the start is" if best is start else "scales without refinement are"
        more, less = _apart(cosine, choices[0][1])
        report.warn(f"on the whole network {what} better (cosine {more}, not {less}) and kept")
    return Calibrated(best, tuple(decider.results[layer.node] for layer in plan.layers))


def _apart(one: float, other: float) -> tuple[str, str]:
    """Two cosines with as many digits as it takes to tell them apart, six at least."""
    digits = 6
    while digits < _DIGITS and f"{one:.{digits}f}" == f"{other:.{digits}f}":
        digits += 1
    return f"{one:.{digits}f}", f"{other:.{digits}f}"


def _spread(dataset: Iterable[Sample], count: int) -> Iterable[Sample]:
    """At most `count` samples; spread over the data where it can be asked for some of them."""
    if not isinstance(dataset, Dataset) or len(dataset) <= count:
        return islice(dataset, count)
    # Folders are often sorted by class: the first pictures would all be of a few.
    return dataset.subset([index * len(dataset) // count for index in range(count)])


class _Settled(Decider):
    """Walks with encodings as they are."""

    @override
    def decide(self, walk: Walk, name: str, layers: Sequence[PlannedLayer]) -> None:
        pass

    @override
    def finish(self, walk: Walk, layer: PlannedLayer) -> None:
        pass


def _network(goals: Mapping[str, Kept], walk: Walk) -> float:
    """Mean cosine of the judged values of a finished walk, over samples and values."""
    scores = []
    for name, goal in goals.items():
        pairs = [(np.ravel(goal[i]), np.ravel(walk.seen(name)[i])) for i in range(len(goal))]
        products = [(a @ b, a @ a, b @ b) for a, b in pairs]
        scores.append(mean_cosine(*np.array(products, np.float64).T))
    return float(np.mean(scores)) if scores else 1.0


def _distant(
    model: ir.Model, plan: Plan, samples: Sequence[Mapping[str, F32]], settings: Settings
) -> dict[str, F32]:
    """Sampled float values of every activation whose scale is tied, [samples, n] each."""
    inputs = {str(value.name) for value in model.graph.inputs}
    searched = [group for group in plan.ties if not plan.observed.keys() & set(group)]
    names = [name for group in searched for name in group if name not in inputs]
    if not names:
        return {}
    generator = np.random.default_rng(settings.seed)
    taken: dict[str, list[F32]] = {name: [] for name in names}
    at: dict[str, npt.NDArray[np.intp]] = {}
    with OnnxRuntime(with_outputs(model, names), threads=settings.threads) as runtime:
        for sample in samples:
            for name, value in runtime.run(sample).items():
                if name not in at:
                    at[name] = generator.permutation(value.size)[:_DISTANT]
                taken[name].append(np.ravel(value)[at[name]])
    return {name: np.stack(rows) for name, rows in taken.items()}

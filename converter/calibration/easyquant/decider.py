"""What the search does at each stop of the walk: scales for one activation and its readers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from typing_extensions import override

from qconvert.calibration.easyquant.activations import refine, refine_powers
from qconvert.calibration.easyquant.corrections import correct_bias
from qconvert.calibration.easyquant.fake import fake
from qconvert.calibration.easyquant.fitting import Fit
from qconvert.calibration.easyquant.reader import mean_cosine
from qconvert.calibration.easyquant.views import made_reader, store, whole_cosine
from qconvert.calibration.easyquant.walk import Decider
from qconvert.calibration.easyquant.weights import choose
from qconvert.calibration.powers import FACTORS
from qconvert.calibration.result import LayerResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from qconvert.calibration.easyquant.effort import Budget
    from qconvert.calibration.easyquant.reader import Reader
    from qconvert.calibration.easyquant.walk import Walk
    from qconvert.plan import Plan, PlannedLayer
    from qconvert.progress import Progress
    from qconvert.quant import F32, Encodings, QParams

    F64 = npt.NDArray[np.float64]

__all__ = ["Search"]

_FROM, _TO = 0.4, 1.2
"""Weight scale candidates relative to the start: clipping pays down to the one end, and beyond
the largest weight only the alignment of codes can gain."""

_VALUES: Final = 4096  # of a value that no layer reads, per sample, when it is judged by itself


class Search(Decider):
    """Coarse-to-fine search with Gram matrices; see `qconvert.calibration.easyquant.search`.

    Args:
        plan: What is quantized.
        start: Encodings to start from, complete.
        budget: How much to try.
        seed: For the choice of positions.
        distant: Samples of float values by name, for values whose scale is tied to earlier ones.
        progress: One step per planned layer.
    """

    def __init__(
        self,
        plan: Plan,
        start: Encodings,
        budget: Budget,
        seed: int,
        distant: dict[str, F32],
        progress: Progress,
    ) -> None:
        self.start, self.budget, self.seed = start, budget, seed
        self.plan, self.distant, self.progress = plan, distant, progress
        self.results: dict[str, LayerResult] = {}
        self._ties = {name: group for group in plan.ties for name in group}
        self._weights: set[str] = set()  # decided at an earlier stop

    @override
    def decide(self, walk: Walk, name: str, layers: Sequence[PlannedLayer]) -> None:
        begin = time.perf_counter()
        encodings = walk.encodings
        settled = encodings.activations.get(name)
        params = settled or self.start.activations[name]
        free = settled is None and self.plan.activations[name].fixed_scale is None
        for layer in layers:
            if layer.weight is not None:
                encodings.weights.setdefault(layer.weight, self.start.weights[layer.weight])
        before = {layer.node: whole_cosine(walk, layer, params) for layer in layers}
        found, tried = self._search(walk, name, layers, params, free=free)
        after = {layer.node: whole_cosine(walk, layer, found) for layer in layers}
        # The whole output decides, not the sample it was searched on.
        if sum(after.values()) < sum(before.values()):
            self._undo(walk, layers)
            found, after = params, before
        self._weights.update(layer.weight for layer in layers if layer.weight is not None)
        for member in self._ties.get(name, (name,)):
            encodings.activations[member] = found
        spent = (time.perf_counter() - begin) / max(len(layers), 1)
        for layer in layers:
            self.results[layer.node] = self._row(
                walk, layer, before[layer.node], after[layer.node], tried, spent
            )

    def _search(
        self, walk: Walk, name: str, layers: Sequence[PlannedLayer], params: QParams, *, free: bool
    ) -> tuple[QParams, int]:
        """Rounds over weights and activation until they stop paying."""
        readers = self._readers(walk, layers)
        others = self._others(walk, name, readers)
        weights = {id(reader): reader.weight() for reader in readers}

        def score(candidate: QParams) -> float:
            parts = [reader.score(candidate, weights[id(reader)]) for reader in readers]
            parts += [other.cosine(candidate) for other in others]
            return sum(parts) / max(len(parts), 1)

        move = refine_powers if self.plan.power_of_two else refine
        best, tried = score(params), 0
        for _ in range(self.budget.rounds):
            last = best
            for reader in readers:
                if not reader.fixed:
                    tried += choose(reader, params, self.factors)
                    weights[id(reader)] = reader.weight()
            best = score(params)
            if free and (readers or others):
                params, best, count = move(params, score, best, stages=self.budget.stages)
                tried += count
            if best - last < self.budget.tolerance:
                break
        return params, tried + self._settle_all(walk, readers, params)

    def _settle_all(self, walk: Walk, readers: Sequence[Reader], params: QParams) -> int:
        """Settle the weights that are not decided yet; how many candidates it took."""
        return sum(self._settle(walk, reader, params) for reader in readers if not reader.fixed)

    def _settle(self, walk: Walk, reader: Reader, params: QParams) -> int:
        """Write the weight into the walk's encodings, refined as far as the budget allows."""
        tried, budget = 0, self.budget
        wanted = (budget.refit or budget.rounding) and not reader.layer.log2
        if not wanted or not Fit.pays(reader):
            store(walk, reader)
            return tried
        fit = Fit(walk, reader, params, budget.fitted, self.seed, refit=budget.refit)
        if budget.refit and fit.fit_weights():
            tried = choose(reader, params, self.factors)
        store(walk, reader)
        if budget.rounding:
            fit.choose_codes()
        fit.fit_bias()
        fit.keep(walk)
        return tried

    @property
    def factors(self) -> F64:
        """Candidates for weight scales, relative to the present ones."""
        if self.plan.power_of_two:
            return FACTORS
        return np.linspace(_FROM, _TO, self.budget.candidates)

    def _readers(self, walk: Walk, layers: Sequence[PlannedLayer]) -> list[Reader]:
        """The search's view of the layers; those it cannot see through keep their start."""
        readers, taken = [], set(self._weights)
        for layer in layers:
            generator = np.random.default_rng([self.seed, self.plan.layers.index(layer)])
            reader = made_reader(walk, layer, generator, positions=self.budget.positions)
            if reader is not None:
                reader.fixed = layer.weight in taken
                readers.append(reader)
            taken.add(layer.weight or "")
        return readers

    def _others(self, walk: Walk, name: str, readers: Sequence[Reader]) -> list[_Judged]:
        """Values that a scale is judged by besides its readers."""
        found = []
        if not readers:
            seen, exact = walk.seen(name), walk.exact(name)
            at = np.random.default_rng(self.seed).permutation(exact[0].size)[:_VALUES]
            left, right = (
                np.stack([np.ravel(side[i])[at] for i in range(len(side))])
                for side in (seen, exact)
            )
            found.append(_Judged(left, right, walk.bounds(name)))
        members = [member for member in self._ties.get(name, ()) if member != name]
        found += [_Judged(self.distant[m], self.distant[m]) for m in members if m in self.distant]
        return found

    def _undo(self, walk: Walk, layers: Sequence[PlannedLayer]) -> None:
        """Go back to the start's weights."""
        for layer in layers:
            if layer.weight is not None and layer.weight not in self._weights:
                walk.encodings.weights[layer.weight] = self.start.weights[layer.weight]
                walk.encodings.rounded.pop(layer.weight, None)
                for held in walk.nodes[layer.node].inputs[2:3]:
                    walk.encodings.biases.pop("" if held is None else str(held.name), None)

    def _row(
        self,
        walk: Walk,
        layer: PlannedLayer,
        before: float,
        after: float,
        tried: int,
        seconds: float,
    ) -> LayerResult:
        params = walk.encodings.activations[layer.input]
        spread = None
        if layer.weight is not None:
            scales = walk.encodings.weights[layer.weight].scale
            spread = float(scales.min()), float(scales.max())
        return LayerResult(
            layer.node,
            threshold=float(params.threshold),
            input_scale=float(params.scale),
            weight_scale=spread,
            cosine_before=before,
            cosine_after=after,
            candidates=tried,
            seconds=seconds,
        )

    @override
    def finish(self, walk: Walk, layer: PlannedLayer) -> None:
        if self.budget.correction:
            correct_bias(walk, layer)
        self.progress.advance(f"{layer.node} {self.results[layer.node].cosine_after:.5f}")


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """A value by which a scale is judged.

    Attributes:
        seen: In the quantized network, [samples, n].
        exact: In the float network.
        bounds: What a Relu or Clip that alone reads it lets through.
    """

    seen: F32
    exact: F32
    bounds: tuple[float, float] = (-np.inf, np.inf)

    def cosine(self, params: QParams) -> float:
        """Mean cosine with float, quantized by `params`."""
        low, high = (np.float32(bound) for bound in self.bounds)
        found = np.clip(fake(self.seen, params), low, high)
        goal = np.clip(self.exact, low, high)
        return mean_cosine(
            np.einsum("sn,sn->s", found, goal),
            np.einsum("sn,sn->s", found, found),
            np.einsum("sn,sn->s", goal, goal),
        )

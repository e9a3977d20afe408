"""What the search does at each stop of the walk: scales for one activation and its readers."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from typing_extensions import override

from qconvert.calibration.easyquant.activations import refine, refine_powers
from qconvert.calibration.easyquant.columns import bias, geometry, units
from qconvert.calibration.easyquant.fake import fake
from qconvert.calibration.easyquant.nodes import activation_after
from qconvert.calibration.easyquant.reader import Reader, mean_cosine
from qconvert.calibration.easyquant.walk import Decider
from qconvert.calibration.easyquant.weights import Gram, choose
from qconvert.calibration.powers import FACTORS
from qconvert.calibration.refine.bias import mean_shift
from qconvert.calibration.refine.rounding import round_rows
from qconvert.calibration.result import LayerResult
from qconvert.graph import constant
from qconvert.quant import dequantize

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from qconvert.calibration.easyquant.effort import Budget
    from qconvert.calibration.easyquant.walk import Walk
    from qconvert.plan import Plan, PlannedLayer
    from qconvert.progress import Progress
    from qconvert.quant import F32, Encodings, QParams

__all__ = ["Search", "made_reader", "store", "whole_cosine"]

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
        for reader in readers:
            if not reader.fixed:
                store(walk, reader)
                if self.budget.rounding and not reader.layer.log2:
                    _round(walk, reader, params)
        return params, tried

    @property
    def factors(self) -> npt.NDArray[np.float64]:
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
            _correct(walk, layer)
        self.progress.advance(f"{layer.node} {self.results[layer.node].cosine_after:.5f}")


def made_reader(
    walk: Walk,
    layer: PlannedLayer,
    generator: np.random.Generator | None,
    *,
    positions: int = 0,
    samples: Sequence[int] | None = None,
) -> Reader | None:
    """A layer's columns and targets; None where it is no plain linear layer.

    Args:
        walk: Stopped at the layer's input.
        layer: The layer.
        generator: Picks output positions; None: all of them.
        positions: How many to pick in all.
        samples: Which samples to look at; None: all.
    """
    node = walk.nodes[layer.node]
    shape = geometry(node) if layer.weight is not None else None
    weight = constant(node.inputs[1])
    params = walk.encodings.weights.get(layer.weight or "")
    offset = bias(node) if shape is not None else None
    if shape is None or weight is None or params is None or offset is None or not params.symmetric:
        return None
    codes = walk.encodings.rounded.get(layer.weight or "")
    seen, exact = walk.seen(layer.input), walk.exact(layer.output)
    indices = range(len(seen)) if samples is None else samples
    per = max(1, min(shape.positions, positions // len(indices)))
    fields, goals = [], []
    for index in indices:
        at = np.arange(shape.positions)
        if generator is not None:
            at = np.sort(generator.permutation(at)[:per])
        fields.append(shape.columns(seen[index], at))
        goals.append(shape.outputs(exact[index], at))
    entry = units(layer, shape, params.scale.size)
    scales = params.scale.reshape(-1)
    return Reader(
        layer=layer,
        geometry=shape,
        matrix=np.ascontiguousarray(shape.matrix(weight), np.float32),
        bias=offset,
        activation=activation_after(node),
        columns=np.concatenate(fields, axis=2),
        target=np.concatenate(goals, axis=1),
        samples=len(indices),
        unit=np.resize(entry, len(offset)),
        entry=entry,
        scales=np.array([scales[entry == u].max() for u in range(entry.max() + 1)], np.float32),
        top=params.high,
        given=None if codes is None else np.asarray(shape.matrix(dequantize(codes, params))),
    )


def store(walk: Walk, reader: Reader) -> None:
    """Write the scales of a reader into the walk's encodings."""
    name = reader.layer.weight
    assert name is not None
    params = walk.encodings.weights[name]
    scale = reader.scales[reader.entry].reshape(params.scale.shape)
    walk.encodings.weights[name] = replace(params, scale=scale)


def _round(walk: Walk, reader: Reader, params: QParams) -> None:
    """Choose codes by output error; the whole output decides whether they stay."""
    name, layer = reader.layer.weight, reader.layer
    moments = Gram(reader, params).moments()
    assert name is not None
    if moments is None:
        return
    before = whole_cosine(walk, layer, params)
    scales = reader.rows(reader.scales)[:, :, 0]
    codes = np.stack(
        [
            round_rows(rows, scale, second, reader.top)
            for rows, scale, second in zip(reader.matrix, scales, moments, strict=True)
        ]
    )
    chosen = reader.geometry.tensor(codes)
    narrow = walk.encodings.weights[name].bits <= 8
    walk.encodings.rounded[name] = chosen.astype(np.int8) if narrow else chosen.astype(np.int16)
    if whole_cosine(walk, layer, params) <= before:
        del walk.encodings.rounded[name]


def _correct(walk: Walk, layer: PlannedLayer) -> None:
    """Take the mean shift of a layer's output back by its bias, where it has one of its own."""
    node = walk.nodes[layer.node]
    held = node.inputs[2] if len(node.inputs) > 2 else None
    stored, offset = constant(held), bias(node)
    if held is None or stored is None or offset is None or len(list(held.uses())) != 1:
        return
    if stored.size != len(offset):
        return
    exact, seen = walk.exact(layer.output), walk.seen(layer.output)
    axis = -1 if layer.op_type in {"Gemm", "MatMul"} else 1
    shift = mean_shift(((exact[i], seen[i]) for i in range(len(exact))), axis)
    shape = [1] * exact[0].ndim
    shape[axis] = -1
    walk.encodings.biases[str(held.name)] = (offset + shift).reshape(stored.shape)
    walk.replace(layer.output, (seen[i] + shift.reshape(shape) for i in range(len(seen))))


def whole_cosine(
    walk: Walk, layer: PlannedLayer, params: QParams, *, behind_activation: bool = True
) -> float:
    """Mean cosine of a layer's whole output over all samples.

    Args:
        walk: Stopped at the layer's input, its weight encoded.
        layer: The layer.
        params: How its input is quantized.
        behind_activation: Compare what the activation function behind the layer, if one alone
            reads it, makes of the output.
    """
    exact = walk.exact(layer.output)
    behind = activation_after(walk.nodes[layer.node]) if behind_activation else None
    products = []
    for index, row in enumerate(walk.rows(layer, params)):
        pair = [row, np.asarray(exact[index])]
        if behind is not None:
            pair = [behind(_by_channel(y)) for y in pair]
        left, right = (np.ravel(y) for y in pair)
        products.append((left @ right, left @ left, right @ right))
    return mean_cosine(*np.array(products, np.float64).T)


def _by_channel(y: F32) -> F32:
    """One sample's output as [channels, positions]."""
    return y.reshape(y.shape[1], -1) if y.ndim > 2 else y.reshape(-1, y.shape[-1]).T


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

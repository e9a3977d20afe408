"""The published search, step by step, on whole outputs.

Per layer: for every output channel the weight scale with the largest cosine of that channel's
output, then the activation scale with the largest cosine of the layer's output; 100 candidates
each, evenly from half to twice the start; again until the cosine stops growing (arXiv:2006.16669,
section 3.2 and 4.1). Cosines are means over the images, and of the linear output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from typing_extensions import override

from qconvert.calibration.easyquant.decider import Search
from qconvert.calibration.easyquant.fake import resized
from qconvert.calibration.easyquant.reader import cosines
from qconvert.calibration.easyquant.views import made_reader, store, whole_cosine
from qconvert.calibration.easyquant.weights import Gram
from qconvert.calibration.powers import FACTORS, around

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from qconvert.calibration.easyquant.reader import Reader
    from qconvert.calibration.easyquant.walk import Walk
    from qconvert.plan import PlannedLayer
    from qconvert.quant import QParams

__all__ = ["PaperSearch"]

_ALPHA, _BETA, _COUNT = 0.5, 2.0, 100
_FACTORS: Final = np.linspace(_ALPHA, _BETA, _COUNT)


class PaperSearch(Search):
    """The search of the paper; see the module."""

    @override
    def _search(
        self, walk: Walk, name: str, layers: Sequence[PlannedLayer], params: QParams, *, free: bool
    ) -> tuple[QParams, int]:
        readers = self._first(walk, layers)
        if not readers:
            return super()._search(walk, name, layers, params, free=free)
        params, tried = self._scales(walk, readers, params, free=free)
        if self.budget.refit or self.budget.rounding:
            tried += self._settle_all(walk, self._readers(walk, layers), params)
        return params, tried

    def _scales(
        self, walk: Walk, readers: Sequence[Reader], params: QParams, *, free: bool
    ) -> tuple[QParams, int]:
        """The paper's rounds over the scales of weights and activation."""

        def score(candidate: QParams) -> float:
            return sum(
                whole_cosine(walk, reader.layer, candidate, behind_activation=False)
                for reader in readers
            ) / len(readers)

        start = params
        best, tried = score(params), 0
        for _ in range(self.budget.rounds):
            held = {r.layer.weight: walk.encodings.weights[r.layer.weight or ""] for r in readers}
            for reader in readers:
                if not reader.fixed:
                    tried += _channels(walk, reader, params, self.factors)
            value = score(params)
            candidates = self.moved(start) if free else []
            scores = [score(candidate) for candidate in candidates]
            tried += len(scores)
            found = params
            if scores and max(scores) > value:
                value, found = max(scores), candidates[int(np.argmax(scores))]
            if value - best <= self.budget.tolerance:
                if value < best:
                    walk.encodings.weights.update((k or "", v) for k, v in held.items())
                else:
                    params = found
                break
            best, params = value, found
        return params, tried

    @property
    @override
    def factors(self) -> npt.NDArray[np.float64]:
        return FACTORS if self.plan.power_of_two else _FACTORS

    def moved(self, start: QParams) -> list[QParams]:
        """The candidates for an activation."""
        if self.plan.power_of_two:
            return around(start, [start.scale * np.float32(f) for f in (1, *FACTORS)])
        return [resized(start, f, f) for f in _FACTORS.tolist()]

    def _first(self, walk: Walk, layers: Sequence[PlannedLayer]) -> list[Reader]:
        """The layers that can be searched, seen through one sample."""
        readers, taken = [], set(self._weights)
        for layer in layers:
            reader = made_reader(walk, layer, None, samples=(0,))
            if reader is not None:
                reader.fixed = layer.weight in taken
                readers.append(reader)
            taken.add(layer.weight or "")
        return readers


def _channels(walk: Walk, reader: Reader, params: QParams, factors: npt.NDArray[np.float64]) -> int:
    """Give every channel of a weight the scale with the largest mean cosine."""
    steps = [np.float32(1), *factors.astype(np.float32)]
    scales = np.maximum(np.stack([reader.scales * f for f in steps]), np.finfo(np.float32).tiny)
    weights = [reader.coded(each) for each in scales]
    total = np.zeros(scales.shape)
    for index in range(len(walk.seen(reader.layer.input))):
        one = made_reader(walk, reader.layer, None, samples=(index,))
        assert one is not None
        gram = Gram(one, params)
        goal = gram.goals()
        total += [cosines(*gram.products(weight), goal) for weight in weights]
    reader.scales = scales[total.argmax(axis=0), np.arange(scales.shape[1])]
    store(walk, reader)
    return len(scales)

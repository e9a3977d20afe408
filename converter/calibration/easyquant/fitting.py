"""Layers fitted to their rounded input: weights, their codes, and the bias to go with them.

Each step looks at the same output positions, behind the activation function, and is taken as far
as it pays on samples that it was not fitted on.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.calibration.easyquant.columns import own_bias
from qconvert.calibration.easyquant.fake import fake
from qconvert.calibration.easyquant.reader import shares
from qconvert.calibration.refine.refit import Moments, refit, shifted
from qconvert.calibration.refine.rounding import round_held_out
from qconvert.graph import constant

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from qconvert.calibration.easyquant.reader import Reader
    from qconvert.calibration.easyquant.walk import Walk
    from qconvert.quant import F32, QParams

    F64 = npt.NDArray[np.float64]

__all__ = ["Fit"]

_FEWEST: Final = 8
"""Samples below which parts of them say too little of one another."""

_DEEPEST: Final = 2304
"""Inputs per output beyond which the systems of equations take too long (time grows cubically)."""

_FOLDS: Final = 4
"""Parts of the samples for cross-validation."""

_DEEP: Final = 1024
"""Inputs per output beyond which there are two: moments take the square of it in memory."""

_VALUES: Final = 1 << 24
"""Values of columns that are kept at a time."""


class Fit:
    """What can be done for one layer once its input's scale is settled.

    Args:
        walk: Stopped at the layer's input.
        reader: The layer; `matrix` and `bias` change.
        params: How its input is quantized.
        positions: Output positions to look at, over all samples.
        seed: For the choice of positions.
        refit: Whether the bias may change.
    """

    def __init__(
        self,
        walk: Walk,
        reader: Reader,
        params: QParams,
        positions: int,
        seed: int,
        *,
        refit: bool,
    ) -> None:
        self._reader = reader
        self._held = own_bias(walk.nodes[reader.layer.node]) if refit else None
        self._groups, self._rows, depth = reader.matrix.shape
        per = min(positions, _VALUES // (self._groups * depth)) // reader.samples
        per = max(1, min(per, reader.geometry.positions))
        self._data = _columns(walk, reader, params, per, seed)
        self._shares = shares(reader.norms).tolist()
        self._folds = _FOLDS if depth <= _DEEP else 2
        self._known: list[Moments] = []
        self._codes: F32 | None = None

    @staticmethod
    def pays(reader: Reader) -> bool:
        """Whether there are samples enough to learn from, and not too many weights an output."""
        return reader.samples >= _FEWEST and reader.matrix.shape[2] <= _DEEPEST

    def fit_weights(self) -> bool:
        """Let the float weight and bias make up for the rounding of the input, if they can."""
        biased = self._held is not None
        found = refit(self._reader.matrix, self._reader.bias, self._moments, biased=biased)
        if found is not None:
            self._reader.matrix, self._reader.bias = found
        return found is not None

    def choose_codes(self) -> None:
        """Round the weight for the least output error that a bias, where it may change, leaves."""
        reader = self._reader
        parts = self._known or self._moments(reader.matrix, reader.bias)
        folds = [part.square if self._held is None else part.centred() for part in parts]
        scales = reader.rows(reader.scales)[:, :, 0]
        self._codes = round_held_out(reader.matrix, scales, folds, reader.top)

    def fit_bias(self) -> None:
        """Let the bias make up for what rounding the weight shifts."""
        if self._held is None:
            return
        reader = self._reader
        weight = (self._coded() * reader.rows(reader.scales)).astype(np.float32)
        rows = len(reader.bias)
        plain = [np.matmul(weight, x).reshape(rows, -1) for x, _ in self._data]

        def left(fold: int, bias: F32) -> tuple[F64, float]:
            """What is left in the samples of a fold, summed, and their weight."""
            total, count = np.zeros(rows), 0.0
            for index in range(fold, len(plain), self._folds):
                goal = self._data[index][1].reshape(rows, -1)
                each = goal - reader.behind(plain[index] + bias[:, None])
                total += self._shares[index] * each.sum(axis=1, dtype=np.float64)
                count += self._shares[index] * each.shape[1]
            return total, count

        reader.bias = shifted(
            reader.bias, lambda bias: [left(fold, bias) for fold in range(self._folds)]
        )

    def keep(self, walk: Walk) -> None:
        """Write the weight's codes and the bias into the walk's encodings."""
        name = str(self._reader.layer.weight)
        codes = self._reader.geometry.tensor(self._coded())
        narrow = walk.encodings.weights[name].bits <= 8
        walk.encodings.rounded[name] = codes.astype(np.int8) if narrow else codes.astype(np.int16)
        if self._held is not None:
            stored = constant(self._held)
            assert stored is not None
            walk.encodings.biases[str(self._held.name)] = self._reader.bias.reshape(stored.shape)

    def _coded(self) -> F32:
        """Chosen codes, or the nearest ones, [G, O/G, K]."""
        if self._codes is not None:
            return self._codes
        reader = self._reader
        nearest = np.rint(reader.matrix / reader.rows(reader.scales))
        return np.asarray(np.clip(nearest, -reader.top, reader.top), np.float32)

    def _moments(self, matrix: F32, offset: F32) -> list[Moments]:
        """Moments of every fold of the samples."""
        parts = (self._parts(fold, matrix, offset) for fold in range(self._folds))
        if self._known:  # columns stay what they are: their products are taken once
            return [known.having(part) for known, part in zip(self._known, parts, strict=True)]
        self._known = [reduce(add, (Moments.of(*each) for each in part)) for part in parts]
        return self._known

    def _parts(self, fold: int, matrix: F32, offset: F32) -> Iterator[tuple[F32, F32, float]]:
        """Columns, what is left to explain, and weight of the samples of a fold."""
        for index in range(fold, len(self._data), self._folds):
            x, goal = self._data[index]
            made = self._reader.output(matrix, x, offset)
            yield x, goal - made.reshape(self._groups, self._rows, -1), self._shares[index]


def _columns(
    walk: Walk, reader: Reader, params: QParams, per: int, seed: int
) -> list[tuple[F32, F32]]:
    """Of each sample: quantized columns [G, K, P] and the target behind the activation."""
    seen, exact = walk.seen(reader.layer.input), walk.exact(reader.layer.output)
    generator = np.random.default_rng([seed, reader.samples, per])
    shape, found = reader.geometry, []
    for index in range(reader.samples):
        at = np.sort(generator.permutation(shape.positions)[:per])
        goal = reader.behind(shape.outputs(exact[index], at))
        x = fake(shape.columns(seen[index], at), params)
        found.append((x, goal.reshape(reader.matrix.shape[0], -1, len(at))))
    return found

"""Weight scales by Gram matrices: all candidates of all channels from two small matrices.

For one layer with quantized input X, target Y and a candidate weight V, the cosine between Y and
V X + b needs only, per output row,

    n = <Y, V X + b> = V (Y X')' + b sum(X) V' + ...        d = |V X + b|^2 = V (X X') V' + ...

so X is touched once, for X X' and Y X', and a candidate costs a product with a [K, K] matrix. The
cosine of the *whole* output is sum(n) / sqrt(sum(d) |Y|^2). Rows with scales of their own can be
chosen one by one all the same: max over r of 2 r sum(n) - r^2 sum(d) is sum(n)^2 / sum(d), so at
the maximum every row maximizes 2 n - r d for one common r, and trying r along a line finds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.calibration.easyquant.fake import fake
from qconvert.calibration.easyquant.reader import shares

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.calibration.easyquant.reader import Reader
    from qconvert.quant import F32, QParams

    F64 = npt.NDArray[np.float64]

__all__ = ["Gram", "choose"]

_RATIOS: Final = np.geomspace(0.5, 2.0, 201)  # 1 where outputs keep their size
_BUDGET: Final = 4e11  # operations one search of a layer's scales may take


class Gram:
    """The matrices of one layer for one quantization of its input.

    Args:
        reader: The layer.
        params: How its input is quantized.
    """

    def __init__(self, reader: Reader, params: QParams) -> None:
        groups, depth, total = reader.columns.shape
        share = shares(reader.norms)
        each = np.sqrt(np.repeat(share, total // reader.samples)).astype(np.float32)
        x = fake(reader.columns, params) * each
        y = (reader.target * each).reshape(groups, -1, total)
        self._bias = reader.bias.reshape(groups, -1)
        self._linear = np.matmul(y, x.transpose(0, 2, 1))
        self._sum = np.matmul(x, each)
        self._constant = np.matmul(y, each) * self._bias
        self._own = self._bias**2 * float(each @ each)
        self._x: F32 = x
        self._square: F32 | None = np.matmul(x, x.transpose(0, 2, 1)) if depth <= total else None
        self._unit = reader.unit
        self._goals = np.square(y).sum(axis=2)

    def products(self, weight: F32) -> tuple[F64, F64]:
        """Inner products with the target and squared norms per free scale, for [G, O/G, K]."""
        means = np.einsum("gok,gk->go", weight, self._sum)
        if self._square is not None:
            squares = np.einsum("gok,gok->go", np.matmul(weight, self._square), weight)
        else:
            squares = (np.matmul(weight, self._x) ** 2).sum(axis=2)
        squares = squares + 2 * self._bias * means + self._own
        dots = np.einsum("gok,gok->go", weight, self._linear) + self._constant
        return self._gather(dots), self._gather(squares)

    def goals(self) -> F64:
        """Squared norms of the target per free scale."""
        return self._gather(self._goals)

    def _gather(self, rows: F32) -> F64:
        """Sums over the rows of each free scale."""
        return np.bincount(self._unit, rows.ravel()).astype(np.float64, copy=False)


def choose(reader: Reader, params: QParams, factors: F64) -> int:
    """Move the free scales of `reader` to the best candidates; returns how many were tried.

    Args:
        reader: The layer; its `scales` are the centre, and a candidate themselves.
        params: How its input is quantized.
        factors: Candidates relative to the present scales, > 0.
    """
    gram = Gram(reader, params)
    depth = reader.matrix.shape[2]
    cost = 2.0 * reader.matrix.size * min(depth, reader.columns.shape[2])
    limit = max(24, int(_BUDGET / max(cost, 1.0)))
    if len(factors) > limit:
        factors = factors[np.linspace(0, len(factors) - 1, limit).astype(int)]
    tiny = np.finfo(np.float32).tiny
    steps = [reader.scales, *(reader.scales * np.float32(f) for f in factors)]
    scales = np.maximum(np.stack(steps), tiny)
    found = [gram.products(reader.coded(each)) for each in scales]
    dots = np.stack([dot for dot, _ in found])
    squares = np.stack([square for _, square in found])
    reader.scales = _best(scales, dots, squares)
    return len(scales)


def _best(scales: F32, dots: F64, squares: F64) -> F32:
    """The candidate of every free scale that together give the largest cosine; all [N, U]."""
    each = np.arange(scales.shape[1])
    best, picked = -np.inf, np.zeros(scales.shape[1], np.intp)
    for ratio in _RATIOS:
        choice = (2 * dots - ratio * squares).argmax(axis=0)
        dot, square = dots[choice, each].sum(), squares[choice, each].sum()
        cosine = dot / np.sqrt(square) if square > 0 else -np.inf
        if cosine > best:
            best, picked = cosine, choice
    return scales[picked, each]

"""A linear layer under search: its sampled columns, its float target, and how well a choice does.

The objective is the paper's: the cosine between the layer's output in the float network and its
output when it is quantized and reads the quantized network before it, averaged over the samples.
Where an activation function alone reads the layer, the cosine is taken behind it, as the authors'
own script does (deepglint/EasyQuant tools/scale_fine_tuning.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.calibration.easyquant.fake import fake, rounded, rounded_log2

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from qconvert.calibration.easyquant.columns import Geometry
    from qconvert.plan import PlannedLayer
    from qconvert.quant import F32, QParams

__all__ = ["Reader", "cosines", "mean_cosine", "shares"]

_BLOCK: Final = 1 << 19  # columns are quantized in blocks that stay in the cache


def cosines(
    dot: npt.ArrayLike, left: npt.ArrayLike, right: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Cosines from products: 1 where both sides are 0, 0 where one is, never NaN.

    Args:
        dot: Inner products.
        left: Squared norms of one side.
        right: Squared norms of the other.
    """
    inner = np.asarray(dot, np.float64)
    squares = np.asarray(left, np.float64) * np.asarray(right, np.float64)
    alive = squares > 0
    ratio = inner / np.sqrt(np.where(alive, squares, 1.0))
    both = (np.asarray(left) == 0) & (np.asarray(right) == 0)
    return np.where(alive, ratio, np.where(both, 1.0, 0.0))


def mean_cosine(dot: npt.ArrayLike, left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Mean over samples of `cosines`."""
    return float(cosines(dot, left, right).mean())


def shares(norms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How much each sample counts in sums of squares, as in a mean of cosines; at most 1."""
    share = np.where(norms > 0, 1.0 / np.maximum(norms, 1e-30), 0.0)
    return np.asarray(share / max(share.max(initial=0.0), 1e-30))


@dataclass(slots=True, eq=False)
class Reader:
    """One linear layer that reads the activation under search.

    Attributes:
        layer: What the plan says of it.
        geometry: How it reads its input.
        matrix: Float weight, [G, O/G, K].
        bias: Float bias, [O].
        activation: The activation function behind it, on [O, P]; None: none.
        columns: Receptive fields from the quantized network before it, not yet quantized
            themselves, [G, K, P]; P = samples * positions per sample.
        target: Output of the float network, [O, P], before the activation function.
        samples: Samples in `columns`.
        unit: Which of the free scales each output row uses, [O].
        entry: Which of the free scales each entry of the weight's scale vector uses.
        scales: Free scales, float32 [U]; the search moves them.
        top: Largest code.
        fixed: Whether the weight was decided already (another layer shares it).
        given: The weight as its explicit codes say it, where there are such, like `matrix`.
        goal: The target behind the activation function.
        norms: Squared norm of `goal` per sample.
    """

    layer: PlannedLayer
    geometry: Geometry
    matrix: F32
    bias: F32
    activation: Callable[[F32], F32] | None
    columns: F32
    target: F32
    samples: int
    unit: npt.NDArray[np.intp]
    entry: npt.NDArray[np.intp]
    scales: F32
    top: int
    fixed: bool = False
    given: F32 | None = None
    goal: F32 = field(init=False)
    norms: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.goal = self.behind(self.target)
        self.norms = self._per_sample(self.goal * self.goal)

    def behind(self, y: F32) -> F32:
        """What the activation function behind the layer makes of `y`, [O, P]."""
        return y if self.activation is None else self.activation(y)

    def _per_sample(self, values: F32) -> npt.NDArray[np.float64]:
        """Sums over rows and positions, one per sample."""
        each = self.columns.shape[2] // self.samples
        sums = values.sum(axis=0).reshape(-1, each)
        return np.asarray(sums.sum(axis=1, dtype=np.float64))

    def rows(self, scales: F32) -> F32:
        """Free scales spread over the output rows, [G, O/G, 1]."""
        return scales[self.unit].reshape(*self.matrix.shape[:2], 1)

    def weight(self) -> F32:
        """The weight as its codes say it, [G, O/G, K]."""
        if self.given is not None:
            return self.given
        return self.coded(self.scales)

    def coded(self, scales: F32) -> F32:
        """The weight as codes of other free scales say it, [G, O/G, K]."""
        spread = self.rows(scales)
        if self.layer.log2:
            return rounded_log2(self.matrix, spread, self.layer.weight_bits)
        return rounded(self.matrix, spread, self.top)

    def output(self, weight: F32, columns: F32, bias: F32 | None = None) -> F32:
        """What the layer puts out for `columns` [G, K, P], behind its activation, [O, P]."""
        y = np.matmul(weight, columns).reshape(len(self.bias), -1)
        y += (self.bias if bias is None else bias)[:, None]
        return self.behind(y)

    def score(self, params: QParams, weight: F32) -> float:
        """Mean cosine over the samples, with its input as `params` and its weight as `weight`."""
        groups, depth, total = self.columns.shape
        per = total // self.samples
        step = max(1, _BLOCK // max(groups * depth * per, 1)) * per
        dots, squares = [], []
        for start in range(0, total, step):
            block = slice(start, start + step)
            y = self.output(weight, fake(self.columns[:, :, block], params))
            dots.append(self._per_sample(y * self.goal[:, block]))
            squares.append(self._per_sample(y * y))
        return mean_cosine(np.concatenate(dots), np.concatenate(squares), self.norms)

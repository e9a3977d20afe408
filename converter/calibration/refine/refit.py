"""Weights that make up for what rounding their input does.

A layer that reads rounded values x' instead of x, through an activation function f, puts out
f(W' x' + b') and not f(W x + b). Part of that error is a linear function of x', and other weights
take it back. Where f grows no faster than its argument, a step to W + D, b + e with

    min |r - D x' - e|^2 + d |D|^2        r = f(W x + b) - f(W' x' + b')

lowers the error behind f: ridge regression of what is left on second moments of x', a few times
over. How much damping d the data bear is found by cross-validation: what was fitted without a part
of the samples must pay on that part, and what does not is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from qconvert.quant import F32

    F64 = npt.NDArray[np.float64]

__all__ = ["DAMPINGS", "Moments", "refit", "shifted"]

DAMPINGS: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Candidates, relative to the mean of the diagonal of the second moments."""

_STEPS: Final = 3


@dataclass(frozen=True, slots=True)
class Moments:
    """Weighted sums over output positions of one layer, float64.

    Attributes:
        square: x' x'^T, [G, K, K].
        total: x', [G, K].
        error: r x'^T, [G, O/G, K].
        shift: r, [G, O/G].
        count: Positions.
    """

    square: F64
    total: F64
    error: F64
    shift: F64
    count: float

    @classmethod
    def of(cls, x: F32, left: F32, weight: float) -> Moments:
        """Of one sample.

        Args:
            x: Columns, [G, K, P].
            left: What is left to explain, [G, O/G, P].
            weight: Of this sample.
        """
        return cls(
            weight * np.matmul(x, x.transpose(0, 2, 1)).astype(np.float64),
            weight * x.sum(axis=2, dtype=np.float64),
            *_errors(x, left, weight),
            weight * x.shape[2],
        )

    def having(self, parts: Iterable[tuple[F32, F32, float]]) -> Moments:
        """The same columns with other things left to explain: `x`, `left` and `weight` of each."""
        errors = [_errors(*part) for part in parts]
        first, *others = errors
        error, shift = first
        for other in others:
            error, shift = error + other[0], shift + other[1]
        return replace(self, error=error, shift=shift)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.square + other.square,
            self.total + other.total,
            self.error + other.error,
            self.shift + other.shift,
            self.count + other.count,
        )

    def __sub__(self, other: Moments) -> Moments:
        return Moments(
            self.square - other.square,
            self.total - other.total,
            self.error - other.error,
            self.shift - other.shift,
            self.count - other.count,
        )

    def centred(self) -> F64:
        """`square` of what a bias cannot take up: x' less its mean."""
        mean = self.total / max(self.count, 1e-30)
        return np.asarray(self.square - self.total[:, :, None] * mean[:, None, :])

    def solve(self, damping: float, *, biased: bool) -> tuple[F64, F64]:
        """The best change of weights [G, O/G, K] and biases [G, O/G]; biases are not damped."""
        square, error, count = self.square, self.error, max(self.count, 1e-30)
        if biased:
            mean = self.total / count
            square = self.centred()
            error = error - self.shift[:, :, None] * mean[:, None, :]
        depth = square.shape[1]
        level = damping * np.trace(square, axis1=1, axis2=2) / depth
        raised = square + np.maximum(level, 1e-30)[:, None, None] * np.eye(depth)
        change = np.linalg.solve(raised, error.transpose(0, 2, 1)).transpose(0, 2, 1)
        if not biased:
            return change, np.zeros_like(self.shift)
        return change, (self.shift - np.einsum("gok,gk->go", change, self.total)) / count

    def gain(self, change: F64, shift: F64) -> float:
        """By how much a change lowers the squared error of these positions."""
        cross = np.einsum("gok,gk->go", change, self.total)
        squares = np.vdot(np.matmul(change, self.square), change)
        squares += self.count * np.vdot(shift, shift) + 2 * np.vdot(cross, shift)
        return float(2 * np.vdot(change, self.error) + 2 * np.vdot(shift, self.shift) - squares)


def _errors(x: F32, left: F32, weight: float) -> tuple[F64, F64]:
    """`error` and `shift` of one sample."""
    error = weight * np.matmul(left, x.transpose(0, 2, 1)).astype(np.float64)
    return error, weight * left.sum(axis=2, dtype=np.float64)


def refit(
    matrix: F32,
    bias: F32,
    folds: Callable[[F32, F32], Sequence[Moments]],
    *,
    biased: bool,
) -> tuple[F32, F32] | None:
    """Change a weight and a bias as far as it pays on samples it was not fitted on.

    Args:
        matrix: [G, O/G, K].
        bias: [O].
        folds: Moments of the parts of the samples, two or more, for a weight and a bias.
        biased: Whether the bias may change too.

    Returns:
        The new weight and bias; None where no change pays.
    """
    candidates: tuple[float, ...] = DAMPINGS
    changed = False
    for _ in range(_STEPS):
        parts = folds(matrix, bias)
        total = reduce(add, parts)
        gains = [_held_out(parts, total, damping, biased=biased) for damping in candidates]
        best = int(np.argmax(gains))
        if not gains[best] > 0:
            break
        candidates = (candidates[best],)
        change, shift = total.solve(candidates[0], biased=biased)
        matrix = (matrix + change).astype(np.float32)
        bias = (bias + shift.ravel()).astype(np.float32)
        changed = True
    return (matrix, bias) if changed else None


def shifted(bias: F32, folds: Callable[[F32], Sequence[tuple[F64, float]]]) -> F32:
    """Move a bias by the mean of what is left, channel by channel, where it pays.

    Args:
        bias: [O].
        folds: Of the parts of the samples, two or more, the sum of what a bias leaves to explain,
            [O], and over how much.

    Returns:
        The new bias, [O].
    """
    for _ in range(_STEPS):
        parts = folds(bias)
        total, count = sum(left for left, _ in parts), sum(size for _, size in parts)
        gain = np.zeros(len(bias))
        for left, size in parts:
            shift = (total - left) / max(count - size, 1e-30)
            gain += 2 * shift * left - size * shift**2
        bias = (bias + np.where(gain > 0, total / max(count, 1e-30), 0.0)).astype(np.float32)
    return bias


def _held_out(parts: Sequence[Moments], total: Moments, damping: float, *, biased: bool) -> float:
    """What fits without a part gain on it, over all parts."""
    return sum(part.gain(*(total - part).solve(damping, biased=biased)) for part in parts)

"""Ranges of single channels, for what evens channels out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.calibration.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.dataset.reader import Dataset
    from qconvert.quant import F32

__all__ = ["channel_ranges"]

_POWER: Final = 8


def channel_ranges(
    model: ir.Model, names: Sequence[str], dataset: Dataset, threads: int = 0
) -> dict[str, F32]:
    """How large each channel (axis 1) gets over all samples.

    The measure is the 8-norm, mean(|x|^8)^(1/8): close to the largest magnitude, but one stray
    value does not decide it.

    Args:
        model: A float model.
        names: Values of rank 2 or more.
        dataset: Samples; memory does not depend on how many.
        threads: Threads of the runtime; 0: one per core.

    Returns:
        Value name → [channels], float32.
    """
    sums: dict[str, _Norm] = {}
    with Feed(model, names, threads) as feed:
        for _, values in feed.walk(dataset):
            for name, value in values.items():
                sums.setdefault(name, _Norm(value.shape[1])).update(value)
    return {name: norm.result() for name, norm in sums.items()}


class _Norm:
    """The running 8-norm of each channel, relative to the largest value so far.

    Args:
        channels: How many there are.
    """

    def __init__(self, channels: int) -> None:
        self._largest = np.zeros(channels)
        self._powers = np.zeros(channels)
        self._count = 0

    def update(self, value: F32) -> None:
        """Add one sample's value, [1, channels, ...]."""
        rows = np.abs(value.astype(np.float64)).reshape(value.shape[0], value.shape[1], -1)
        largest = np.maximum(self._largest, rows.max(axis=(0, 2)))
        safe = np.where(largest > 0, largest, 1.0)
        relative = rows / safe[None, :, None]
        self._powers = self._powers * (self._largest / safe) ** _POWER
        self._powers += (relative**_POWER).sum(axis=(0, 2))
        self._largest = largest
        self._count += rows.shape[0] * rows.shape[2]

    def result(self) -> F32:
        """The norms, [channels]."""
        mean = self._powers / max(self._count, 1)
        return np.asarray(self._largest * mean ** (1 / _POWER), np.float32)

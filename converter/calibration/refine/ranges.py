"""Ranges of single channels, for what evens channels out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.calibration.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.dataset.reader import Dataset
    from qconvert.quant import F32

__all__ = ["channel_ranges"]


def channel_ranges(
    model: ir.Model, names: Sequence[str], dataset: Dataset, threads: int = 0
) -> dict[str, F32]:
    """Largest magnitude of each channel (axis 1) over all samples.

    Args:
        model: A float model.
        names: Values of rank 2 or more.
        dataset: Samples; memory does not depend on how many.
        threads: Threads of the runtime; 0: one per core.

    Returns:
        Value name → [channels], float32.
    """
    found: dict[str, F32] = {}
    with Feed(model, names, threads) as feed:
        for _, values in feed.walk(dataset):
            for name, value in values.items():
                sizes = np.abs(value).reshape(value.shape[0], value.shape[1], -1).max(axis=(0, 2))
                found[name] = np.maximum(found.get(name, sizes), sizes)
    return found

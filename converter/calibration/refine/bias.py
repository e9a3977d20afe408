"""Bias correction: quantization shifts the mean of a layer's outputs, the bias takes it back.

    b' = b + E[W x] - E[Q(W) x']

with x from the float network and x' from the quantized one, per output channel over all samples
and positions (Nagel et al. 2019, arXiv:1906.04721, section 4.2, with measured means). Exact on the
samples it was measured on, as far as the layer is linear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from qconvert.quant import F32

__all__ = ["mean_shift"]


def mean_shift(pairs: Iterable[tuple[F32, F32]], channel_axis: int) -> F32:
    """What to add to a bias.

    Args:
        pairs: (float output, quantized output) of each sample, of one shape.
        channel_axis: Which axis counts output channels.

    Returns:
        [channels], float32.
    """
    total: npt.NDArray[np.float64] | None = None
    count = 0
    for exact, seen in pairs:
        gap = np.moveaxis(exact.astype(np.float64) - seen, channel_axis, 0)
        gap = gap.reshape(gap.shape[0], -1)
        total = gap.sum(axis=1) if total is None else total + gap.sum(axis=1)
        count += gap.shape[1]
    if total is None:
        raise ValueError("there are no outputs to compare")
    return np.asarray(total / count, np.float32)

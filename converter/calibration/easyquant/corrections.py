"""A last correction of a layer: its bias takes back the mean shift of its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.calibration.easyquant.columns import own_bias
from qconvert.calibration.refine.bias import mean_shift
from qconvert.graph import constant

if TYPE_CHECKING:
    from qconvert.calibration.easyquant.walk import Walk
    from qconvert.plan import PlannedLayer

__all__ = ["correct_bias"]


def correct_bias(walk: Walk, layer: PlannedLayer) -> None:
    """Take the mean shift of a layer's output back by its bias, where it has one of its own."""
    node = walk.nodes[layer.node]
    held = own_bias(node)
    if held is None:
        return
    stored = constant(held)
    assert stored is not None
    offset = walk.encodings.biases.get(str(held.name), stored)
    exact, seen = walk.exact(layer.output), walk.seen(layer.output)
    axis = -1 if layer.op_type in {"Gemm", "MatMul"} else 1
    shift = mean_shift(((exact[i], seen[i]) for i in range(len(exact))), axis)
    shape = [1] * exact[0].ndim
    shape[axis] = -1
    corrected = offset.astype(np.float32).reshape(-1) + shift
    walk.encodings.biases[str(held.name)] = corrected.reshape(stored.shape)
    walk.replace(layer.output, (seen[i] + shift.reshape(shape) for i in range(len(seen))))

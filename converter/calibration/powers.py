"""Scales that are powers of two: a multiplication by one is a shift.

The method first finds the scale it would choose freely. Of the two powers of two next to it, the
one with the smaller squared error is taken: of the weights themselves, and of the activation's
values on all calibration data. The search (`easyquant`) starts there and goes on by its own
objective, in steps of two.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.calibration.activations import before_layers, groups_of
from qconvert.calibration.feed import Feed
from qconvert.calibration.methods.loss import Points, rows_error
from qconvert.calibration.observers import Histogram
from qconvert.quant import powers_around

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.calibration.settings import Settings
    from qconvert.dataset.reader import Dataset
    from qconvert.plan import Plan
    from qconvert.progress import Progress
    from qconvert.quant import F32, QParams

__all__ = ["FACTORS", "around", "snap_activations", "snap_rows"]

FACTORS: Final = np.array([0.25, 0.5, 2.0, 4.0])
"""Other scales a search tries, relative to the present one."""


def snap_rows(rows: F32, params: QParams) -> QParams:
    """The best power of two next to the scale of each row.

    Args:
        rows: float32 [rows, n].
        params: Symmetric, `axis` 0, one scale per row.
    """
    below, above = (replace(params, scale=scale) for scale in powers_around(params.scale))
    fine = rows_error(rows, below) < rows_error(rows, above)
    return replace(params, scale=np.where(fine, below.scale, above.scale))


def around(params: QParams, scales: Sequence[F32]) -> list[QParams]:
    """Parameters of one scale with other scales; where there is a zero point, several of them.

    The range of the codes ends where the old one began, or ends, or lies around its middle.
    """
    if params.symmetric:
        return [replace(params, scale=scale) for scale in scales]
    found = []
    codes = np.array([params.low, params.high, (params.low + params.high) / 2])
    ends = float(params.scale) * (codes - int(params.zero_point))
    for scale in scales:
        points = np.clip(np.rint(codes - ends / float(scale)), params.low, params.high)
        found += [
            replace(params, scale=scale, zero_point=np.asarray(point, np.int32))
            for point in sorted({int(point) for point in points})
        ]
    return found


def snap_activations(
    model: ir.Model,
    plan: Plan,
    dataset: Dataset,
    found: dict[str, QParams],
    settings: Settings,
    progress: Progress,
) -> dict[str, QParams]:
    """The best power of two next to the scale of each activation; fixed scales stay.

    Args:
        model: The optimized float model.
        plan: What is quantized; tied activations get equal parameters.
        dataset: Calibration data: one more pass.
        found: Parameters by value name, complete.
        settings: `threads` and `method`, for the progress line.
        progress: Advances once per sample.
    """
    free = [
        group
        for group in groups_of(plan).values()
        if all(plan.scaled[name].fixed_scale is None for name in group)
    ]
    seen = {name: Histogram() for group in free for name in group}
    with Feed(model, list(seen), settings.threads) as feed:
        progress.start(f"calibrating ({settings.method}, powers of two)", len(dataset))
        feed.observe(dataset, seen, progress)
        progress.finish()
    snapped, feeding = dict(found), before_layers(model, plan)
    for group in free:
        whole = seen[group[0]]
        for name in group[1:]:
            whole.join(seen[name])
        params = found[group[0]]
        below, above = (np.asarray(scale) for scale in powers_around(params.scale))
        # What no layer reads is never clipped; of equals the wider range, for data not seen.
        candidates = around(params, [above, below] if feeding.intersection(group) else [above])
        snapped.update(dict.fromkeys(group, min(candidates, key=Points.of(whole).loss)))
    return snapped

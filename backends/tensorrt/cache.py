"""The calibration cache: one row for every tensor that has a scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qconvert.formats.tensorrt_cache import Cache

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.backends.tensorrt.version import Version
    from qconvert.report import Report

__all__ = ["cache"]


def cache(scales: Mapping[str, float], version: Version, report: Report) -> Cache:
    """The cache of a model.

    The algorithm it names is always the second entropy calibrator, whatever found the scales:
    trtexec's own calibrator is one, and a cache that names another is thrown away.

    Args:
        scales: Tensor → scale, > 0; names that can stand in a cache.
        version: Whose number the header carries.
        report: Warned of names that some readers get wrong.
    """
    colons = [name for name in scales if ":" in name]
    if colons:
        report.warn(
            f"{len(colons)} tensor names hold a colon ({colons[0]!r}): TensorRT reads them, "
            "NVDLA's converter of caches drops them"
        )
    return Cache(version.number, dict(scales))

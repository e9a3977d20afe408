"""What a run took."""

from __future__ import annotations

import resource

__all__ = ["peak_memory_mb"]


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

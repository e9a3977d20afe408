"""Room for the activations a search keeps: in memory up to a limit, beyond it on disk.

On disk means a memory-mapped temporary file without a name: the system takes it back when the
process ends, however it ends.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from qconvert.quant import F32

__all__ = ["MEMORY_LIMIT", "Kept", "Scratch"]

MEMORY_LIMIT: Final = 1 << 29
"""Bytes of activations that are kept in memory."""


class Kept:
    """One value of the network for every sample.

    Args:
        rows: [samples, ...]: one row per sample, or one array per sample where shapes differ.
    """

    def __init__(self, rows: F32 | list[F32]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> F32:
        return self.rows[index]

    def fitting(self, row: F32) -> F32 | None:
        """The array of all rows, where each is of the shape and type of `row`."""
        if isinstance(self.rows, list):
            return None
        return (
            self.rows if self.rows[0].shape == row.shape and self.rows.dtype == row.dtype else None
        )

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        if isinstance(self.rows, list):
            return sum(row.nbytes for row in self.rows)
        return self.rows.nbytes


class Scratch:
    """Hands out room, and counts what is in memory.

    Args:
        limit: Bytes that may be in memory at a time.
    """

    def __init__(self, limit: int = MEMORY_LIMIT) -> None:
        self._limit = limit
        self._held = 0

    def room(self, samples: int, shape: tuple[int, ...], dtype: np.dtype[np.float32]) -> F32:
        """An array [samples, *shape] with anything in it; give it back with `free`."""
        size = samples * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if size == 0 or self._held + size <= self._limit:
            self._held += size
            return np.empty((samples, *shape), dtype)
        with tempfile.TemporaryFile(prefix="qconvert.") as file:
            return np.memmap(file, dtype=dtype, mode="w+", shape=(samples, *shape))

    def free(self, kept: Kept) -> None:
        """Count `kept` as gone; the memory itself goes with its last reference."""
        if not isinstance(kept.rows, np.memmap):
            self._held -= kept.nbytes

"""What a first pass over the data keeps in memory to spare a second one work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qconvert.quant import F32

__all__ = ["Kept"]


class Kept:
    """Values other than 0 of every sample, of as many activations as there is room for.

    The deeper an activation lies, the more computing it costs, and in most networks the smaller it
    is: where room runs short, the one computed first is given up, of all samples. What has to be
    computed again is then a beginning of the network.

    Attributes:
        samples: Names of the samples so far.

    Args:
        names: What to keep, in the order it is computed.
        room: Bytes there are.
        count: Samples to come.
    """

    def __init__(self, names: Sequence[str], room: int, count: int) -> None:
        self.samples: list[str] = []
        self._values: dict[str, list[F32]] = {name: [] for name in names}
        self._size = 0
        self._room = room
        self._count = count

    @property
    def names(self) -> frozenset[str]:
        """What is kept, of every sample so far."""
        return frozenset(self._values)

    def add(self, sample: str, values: Mapping[str, F32]) -> None:
        """Keep what there is room for, and give up what there will not be room for."""
        self.samples.append(sample)
        for name, kept in self._values.items():
            value = values[name].ravel()
            kept.append(np.compress(value != 0, value))  # twice as fast as a mask in brackets
            self._size += kept[-1].nbytes
        # The samples to come are taken to be as large as those so far.
        while self._size * self._count > self._room * len(self.samples):
            first = next(iter(self._values))
            self._size -= sum(value.nbytes for value in self._values.pop(first))

    def of(self, index: int) -> dict[str, F32]:
        """What is kept of a sample: activation → its values other than 0, one axis."""
        return {name: kept[index] for name, kept in self._values.items()}

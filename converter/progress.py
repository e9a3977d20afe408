"""Progress of long work, without knowing who shows it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Quiet"]


class Progress(Protocol):
    """A listener for long work: one bar at a time."""

    def start(self, title: str, total: int) -> None:
        """Begin a piece of work of `total` steps."""

    def advance(self, detail: str = "") -> None:
        """One step is done; `detail` is a short word on it (a layer, a cosine)."""

    def finish(self) -> None:
        """The piece of work is done."""


class Quiet:
    """Shows nothing."""

    def start(self, title: str, total: int) -> None:
        """Ignore."""

    def advance(self, detail: str = "") -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""

"""The backend behind a target's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qconvert.backends import BACKENDS
from qconvert.errors import UsageError

if TYPE_CHECKING:
    from qconvert.target import Backend

__all__ = ["target"]


def target(name: str | None) -> Backend:
    """The backend called `name`.

    Raises:
        UsageError: If there is none.
    """
    if name is None or name not in BACKENDS:
        raise UsageError(
            "there is no target" if name is None else f"the target '{name}' is not available",
            why=f"this release writes {', '.join(BACKENDS)}",
            fix=f"add --to {next(iter(BACKENDS))}",
        )
    return BACKENDS[name]

"""The backend behind a target's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qconvert.backends import BACKENDS
from qconvert.bundle import MANIFEST
from qconvert.errors import ModelFormatError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.bundle import Manifest
    from qconvert.target import Backend

__all__ = ["target", "target_of"]


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


def target_of(bundle: Path, manifest: Manifest) -> Backend:
    """The backend that wrote a bundle.

    Raises:
        ModelFormatError: If this release has none of that name.
    """
    if manifest.target not in BACKENDS:
        raise ModelFormatError(
            f"the bundle is for '{manifest.target}', which is no target",
            at=str(bundle / MANIFEST),
            why=f"this release knows {', '.join(BACKENDS)}",
            fix="convert again, or use the release that wrote it",
        )
    return BACKENDS[manifest.target]

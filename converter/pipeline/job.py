"""What the user asks for, apart from how: files in, a place for what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.recipe import Recipe

__all__ = ["Job"]


@dataclass(frozen=True, slots=True)
class Job:
    """What a conversion or a calibration is asked for.

    Attributes:
        files: MODEL [WEIGHTS].
        destination: The bundle's folder, absent or empty unless `force`; for a calibration, the
            encodings file.
        recipe: Everything else that decides the result.
        calib: Calibration data; None converts without calibration.
        encodings: Scales from an earlier calibration or another tool.
        force: Replace what exists.
        keep_failed: Leave a bundle behind that failed verification.
    """

    files: tuple[Path, ...]
    destination: Path
    recipe: Recipe
    calib: Path | None = None
    encodings: Path | None = None
    force: bool = False
    keep_failed: bool = False

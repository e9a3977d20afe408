"""What a bundle's files must be before anything is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.bundle import sha256
from qconvert.errors import VerificationError
from qconvert.verification.tolerance import require_exact
from qconvert.verification.verify import Comparison

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qconvert.bundle import Manifest
    from qconvert.target import Backend, Finding

__all__ = ["accepted", "check_files", "check_golden"]


def check_files(bundle: Path, manifest: Manifest) -> None:
    """Compare every file of a bundle with the hash the manifest has for it.

    Raises:
        VerificationError: Names every file that is missing or changed.
    """
    wrong = []
    for entry in manifest.files:
        path = bundle / entry.path
        if bundle.resolve() not in path.resolve().parents:
            wrong.append(f"{entry.path} lies outside the bundle")
        elif not path.is_file():
            wrong.append(f"{entry.path} is missing")
        elif sha256(path) != entry.sha256:
            wrong.append(f"{entry.path} was changed")
    if wrong:
        raise VerificationError(
            "the bundle is not what was written",
            at=str(bundle),
            why="; ".join(wrong),
            fix="convert again",
        )


def accepted(findings: Sequence[Finding]) -> Sequence[Finding]:
    """Findings that the target can live with.

    Raises:
        VerificationError: If there is one that it refuses; names all of those.
    """
    refused = [finding for finding in findings if finding.refused]
    if refused:
        count = len(refused)
        raise VerificationError(
            f"the artifact breaks {count} rule{'s' * (count != 1)} of its target",
            at="; ".join(finding.at for finding in refused[:8]),
            why="\n       ".join(str(finding) for finding in refused[:8]),
        )
    return findings


def check_golden(backend: Backend, bundle: Path, manifest: Manifest) -> int:
    """Compare golden vectors, bit by bit, up to the first that differs; how many there are.

    Raises:
        VerificationError: Names the value that differs, and its layer.
    """
    count = 0
    for count, value in enumerate(backend.exact(bundle, manifest), start=1):  # noqa: B007
        if np.array_equal(value.wanted, value.given):
            continue
        comparison = Comparison()
        wanted, given = (array.astype(np.float32) for array in (value.wanted, value.given))
        comparison.add({value.name: wanted}, {value.name: given})
        require_exact(comparison.result("the integer executor"), against="its golden vectors")
    return count

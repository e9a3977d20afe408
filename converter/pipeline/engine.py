"""`verify --engine`: what the target's own compiler makes of a bundle, on this machine."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from qconvert.bundle import Manifest
from qconvert.errors import UsageError
from qconvert.pipeline.checks import accepted, check_files
from qconvert.pipeline.on_reference import on_reference
from qconvert.pipeline.targets import target_of
from qconvert.verification.tolerance import require_cosine

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.verification.verify import Verification

__all__ = ["verify_engines"]

_CLOSE: Final = 0.99
"""Cosine that an engine must reach with the simulation: compilers choose where to round."""


def verify_engines(bundle: Path) -> dict[str, Any]:
    """Build a bundle's engines and run them on the bundle's own inputs.

    An engine may be as far from the simulation as twice the simulation is from the source model,
    or reach a cosine of 0.99: a compiler may leave layers in float, which moves it towards the
    source.

    Returns:
        `engines`: one `verification` object per engine.

    Raises:
        UsageError: If the target has no engines.
        MissingRuntimeError: If its compiler, or the device it compiles for, is not there.
        VerificationError: If a file changed, the compiler refuses it, or the engine is far off.
    """
    manifest = Manifest.read(bundle)
    backend = target_of(bundle, manifest)
    if backend.engines is None:
        raise UsageError(
            f"there are no engines for the target '{backend.name}'",
            at="--engine",
            why="its files are run as they are",
            fix="leave --engine out",
        )
    check_files(bundle, manifest)
    findings = accepted(backend.check(bundle, manifest))
    results = []
    for engine in backend.engines(bundle, manifest):
        with closing(engine):
            ran = on_reference(bundle, manifest, engine)
        if ran.simulation is not None:
            require_cosine(ran.simulation, _bound(manifest), against="the quantized simulation")
        else:
            require_cosine(ran.source, _CLOSE, against="the source model")
        results.append(_document(ran.source, ran.simulation))
    return {**results[0], "engines": results, "lint": [str(finding) for finding in findings]}


def _document(source: Verification, simulation: Verification | None) -> dict[str, Any]:
    document = source.to_json()
    if simulation is not None:
        document["simulation"] = simulation.to_json()
    return document


def _bound(manifest: Manifest) -> float:
    """How close to the simulation an engine must be."""
    rows = (manifest.verification or {}).get("outputs", ())
    known = [float(row["cosine"]) for row in rows if row["cosine"] is not None]
    return min([_CLOSE, *(1 - 2 * (1 - cosine) for cosine in known)])

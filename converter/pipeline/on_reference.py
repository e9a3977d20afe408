"""A bundle on the inputs that it keeps in `reference.npz`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qconvert.verification.reference import FILE, load
from qconvert.verification.tolerance import SIMULATION
from qconvert.verification.verify import Comparison

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qconvert.bundle import Manifest
    from qconvert.quant import F32
    from qconvert.runtimes import Runtime
    from qconvert.verification.reference import Case
    from qconvert.verification.verify import Verification

__all__ = ["OnReference", "detections", "on_reference", "simulation_bound"]


@dataclass(frozen=True, slots=True)
class OnReference:
    """What an artifact did with the bundle's own inputs.

    Attributes:
        source: Against the source model.
        simulation: Against the quantized simulation; None where the bundle is float.
        cases: What ran.
        results: What came out, one entry a case.
    """

    source: Verification
    simulation: Verification | None
    cases: tuple[Case, ...]
    results: tuple[Mapping[str, F32], ...]


def on_reference(bundle: Path, manifest: Manifest, candidate: Runtime) -> OnReference:
    """Run an artifact on the bundle's own inputs.

    Raises:
        ModelFormatError: If the reference cannot be read.
    """
    cases = tuple(load(bundle / FILE, [entry["name"] for entry in manifest.inputs]))
    found = detections(manifest)
    source, simulation = Comparison(found), Comparison(found)
    results = []
    for case in cases:
        given = candidate.run(case.inputs)
        results.append(given)
        source.add(case.outputs, given)
        if case.simulated:
            simulation.add(case.simulated, given)
    return OnReference(
        source.result(candidate.name),
        simulation.result(candidate.name) if simulation.samples else None,
        cases,
        tuple(results),
    )


def simulation_bound(manifest: Manifest) -> float:
    """How close the artifact must be to its simulation on the bundle's own inputs.

    Where single roundings grow through the network (see `qconvert.verification.stepwise`), the
    distance measured when the bundle was made sets the scale; twice that is allowed, since
    another processor rounds other sums up.
    """
    simulation = (manifest.verification or {}).get("simulation") or {}
    recorded = [float(v) for v in simulation.get("on_reference", {}).values() if v is not None]
    return min([SIMULATION, *(1 - 2 * (1 - value) for value in recorded)])


def detections(manifest: Manifest) -> frozenset[str]:
    """Outputs that hold one row per object found: the only ones of unknown size."""
    return frozenset(entry["name"] for entry in manifest.outputs if -1 in entry["shape"])

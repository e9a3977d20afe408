"""`verify`: a bundle on disk, run on its runtime again."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import numpy as np

from qconvert.bundle import Manifest, sha256
from qconvert.dataset.reader import open_dataset
from qconvert.errors import VerificationError
from qconvert.pipeline.data import preprocessing_for
from qconvert.pipeline.targets import target
from qconvert.verification.reference import FILE as REFERENCE
from qconvert.verification.reference import load
from qconvert.verification.tolerance import FLOAT, SIMULATION, require_cosine, require_exact
from qconvert.verification.verify import Comparison, compare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qconvert.dataset.reader import Dataset
    from qconvert.progress import Progress
    from qconvert.runtimes import Runtime
    from qconvert.target import Backend, Finding
    from qconvert.verification.verify import Verification

__all__ = ["accepted", "bundle_data", "check_files", "on_reference", "verify"]


def verify(
    bundle: Path,
    *,
    data: Path | None,
    preprocess: Mapping[str, Any] | None,
    min_cosine: float | None,
    jobs: int,
    progress: Progress,
) -> dict[str, Any]:
    """Check a bundle's files, run it, and measure it against its float model.

    Args:
        bundle: The folder.
        data: Inputs; None: the bundle's own reference.
        preprocess: Preprocessing keys for `data`; None: the bundle's own.
        min_cosine: Least cosine to the float model on every output.
        jobs: Threads that decode images; 0: one per core.
        progress: Told of every sample.

    Returns:
        The `verification` object of `verify --json`.

    Raises:
        ModelFormatError: If the folder is not a bundle.
        VerificationError: If a file changed, the runtime refuses the artifact, or a figure falls
            short.
    """
    manifest = Manifest.read(bundle)
    check_files(bundle, manifest)
    backend = target(manifest.target)
    backend.require()
    findings = accepted(backend.check(bundle, manifest))
    with ExitStack() as stack:
        candidate = stack.enter_context(closing(backend.open(bundle, manifest)))
        vectors = _exact(backend, bundle, manifest)
        measured, simulation = on_reference(bundle, manifest, candidate)
        if not manifest.quantized:
            require_cosine(measured, FLOAT, against="the source model")
        if simulation is not None:
            bound = _simulation_bound(manifest)
            require_cosine(simulation, bound, against="the quantized simulation")
        if data is not None:
            dataset = bundle_data(manifest, data, preprocess, labels=None, jobs=jobs)
            reference = stack.enter_context(closing(backend.open_float(bundle, manifest)))
            measured = compare(
                reference,
                candidate,
                (sample.inputs for sample in dataset),
                detections=_detections(manifest),
                progress=progress,
                total=len(dataset),
            )
            if not manifest.quantized:
                require_cosine(measured, FLOAT, against="the float model")
    if min_cosine is not None:
        require_cosine(measured, min_cosine, against="the float model (--min-cosine)")
    document = measured.to_json()
    if simulation is not None:
        document["simulation"] = simulation.to_json()
    if vectors:
        document["golden_vectors"] = vectors
    if backend.lint is not None:
        document["lint"] = [str(finding) for finding in findings]
    return document


def _exact(backend: Backend, bundle: Path, manifest: Manifest) -> int:
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


def bundle_data(
    manifest: Manifest,
    data: Path,
    preprocess: Mapping[str, Any] | None,
    *,
    labels: Path | None,
    jobs: int,
) -> Dataset:
    """Open DATA for a bundle, with the bundle's own preprocessing unless another is given.

    Raises:
        CalibrationError: If the data does not fit, or there is no preprocessing.
    """
    shapes = {entry["name"]: tuple(entry["shape"]) for entry in manifest.inputs}
    own: Mapping[str, Any] = next(
        (entry["preprocessing"] for entry in manifest.inputs if entry["preprocessing"]), {}
    )
    keys = {**own, **(preprocess or {})}
    preprocessing = preprocessing_for(keys, shapes)
    return open_dataset(data, shapes, preprocessing=preprocessing, labels=labels, jobs=jobs)


def on_reference(
    bundle: Path, manifest: Manifest, candidate: Runtime
) -> tuple[Verification, Verification | None]:
    """The artifact on the bundle's own inputs: against the source model, and its simulation.

    The second is None where the bundle is float.
    """
    cases = load(bundle / REFERENCE, [entry["name"] for entry in manifest.inputs])
    detections = _detections(manifest)
    source, simulation = Comparison(detections), Comparison(detections)
    for case in cases:
        given = candidate.run(case.inputs)
        source.add(case.outputs, given)
        if case.simulated:
            simulation.add(case.simulated, given)
    return (
        source.result(candidate.name),
        simulation.result(candidate.name) if simulation.samples else None,
    )


def _simulation_bound(manifest: Manifest) -> float:
    """How close the artifact must be to its simulation on the bundle's own inputs.

    Where single roundings grow through the network (see `qconvert.verification.stepwise`), the
    distance measured when the bundle was made sets the scale; twice that is allowed, since
    another processor rounds other sums up.
    """
    simulation = (manifest.verification or {}).get("simulation") or {}
    recorded = [float(v) for v in simulation.get("on_reference", {}).values() if v is not None]
    return min([SIMULATION, *(1 - 2 * (1 - value) for value in recorded)])


def _detections(manifest: Manifest) -> frozenset[str]:
    """Outputs that hold one row per object found: the only ones of unknown size."""
    return frozenset(entry["name"] for entry in manifest.outputs if -1 in entry["shape"])

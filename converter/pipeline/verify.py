"""`verify`: a bundle on disk, run on its runtime again."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from qconvert.bundle import Manifest, sha256
from qconvert.dataset.reader import open_dataset
from qconvert.errors import VerificationError
from qconvert.pipeline.data import preprocessing_for
from qconvert.pipeline.deployed import deployed
from qconvert.pipeline.targets import target
from qconvert.verification.reference import FILE as REFERENCE
from qconvert.verification.reference import load
from qconvert.verification.tolerance import FLOAT, SIMULATION, require_cosine
from qconvert.verification.verify import Comparison, compare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qconvert.dataset.reader import Dataset
    from qconvert.progress import Progress
    from qconvert.quant import F32
    from qconvert.runtimes import Runtime
    from qconvert.verification.reference import Case
    from qconvert.verification.verify import Verification

__all__ = ["bundle_data", "check_files", "verify"]


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
    with ExitStack() as stack:
        candidate = stack.enter_context(closing(backend.open(bundle, manifest)))
        on_reference, simulation, ran = _on_reference(bundle, manifest, candidate)
        if not manifest.quantized:
            require_cosine(on_reference, FLOAT, against="the source model")
        if simulation is not None:
            bound = _simulation_bound(manifest)
            require_cosine(simulation, bound, against="the quantized simulation")
        second = deployed(backend, bundle, manifest, *ran, _detections(manifest))
        measured = on_reference
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
    if second is not None:
        document["as_deployed"] = second.to_json()
    return document


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


def _on_reference(
    bundle: Path, manifest: Manifest, candidate: Runtime
) -> tuple[Verification, Verification | None, tuple[Sequence[Case], list[Mapping[str, F32]]]]:
    """The artifact on the bundle's own inputs.

    Returns:
        Against the source model, against the simulation, and what ran with what came out.
    """
    cases = load(bundle / REFERENCE, [entry["name"] for entry in manifest.inputs])
    detections = _detections(manifest)
    source, simulation = Comparison(detections), Comparison(detections)
    results: list[Mapping[str, F32]] = []
    for case in cases:
        given = candidate.run(case.inputs)
        results.append(given)
        source.add(case.outputs, given)
        if case.simulated:
            simulation.add(case.simulated, given)
    return (
        source.result(candidate.name),
        simulation.result(candidate.name) if simulation.samples else None,
        (cases, results),
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

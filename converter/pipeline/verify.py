"""`verify`: a bundle on disk, run on its runtime again."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from qconvert.bundle import Manifest
from qconvert.dataset.reader import open_dataset
from qconvert.pipeline.checks import accepted, check_files, check_golden
from qconvert.pipeline.data import preprocessing_for
from qconvert.pipeline.deployed import deployed
from qconvert.pipeline.on_reference import detections, on_reference, simulation_bound
from qconvert.pipeline.targets import target_of
from qconvert.verification.tolerance import FLOAT, require_cosine
from qconvert.verification.verify import compare

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qconvert.dataset.reader import Dataset
    from qconvert.progress import Progress

__all__ = ["bundle_data", "verify"]


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
    backend = target_of(bundle, manifest)
    backend.require()
    findings = accepted(backend.check(bundle, manifest))
    with ExitStack() as stack:
        candidate = stack.enter_context(closing(backend.open(bundle, manifest)))
        vectors = check_golden(backend, bundle, manifest)
        ran = on_reference(bundle, manifest, candidate)
        measured, simulation = ran.source, ran.simulation
        if not manifest.quantized:
            require_cosine(measured, FLOAT, against="the source model")
        if simulation is not None:
            bound = simulation_bound(manifest)
            require_cosine(simulation, bound, against="the quantized simulation")
        second = deployed(backend, bundle, manifest, ran.cases, ran.results, detections(manifest))
        if data is not None:
            dataset = bundle_data(manifest, data, preprocess, labels=None, jobs=jobs)
            reference = stack.enter_context(closing(backend.open_float(bundle, manifest)))
            measured = compare(
                reference,
                candidate,
                (sample.inputs for sample in dataset),
                detections=detections(manifest),
                progress=progress,
                total=len(dataset),
            )
            if not manifest.quantized:
                require_cosine(measured, FLOAT, against="the float model")
    if min_cosine is not None:
        require_cosine(measured, min_cosine, against="the float model (--min-cosine)")
    lint = None if backend.lint is None else [str(finding) for finding in findings]
    return {
        **measured.to_json(),
        **({} if simulation is None else {"simulation": simulation.to_json()}),
        **({"golden_vectors": vectors} if vectors else {}),
        **({} if lint is None else {"lint": lint}),
        **({} if second is None else {"as_deployed": second.to_json()}),
    }


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

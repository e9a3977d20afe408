"""One conversion: files in, a verified bundle out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from qconvert.bundle import BundleFile, Manifest, sha256, staged
from qconvert.errors import CalibrationError, UnsupportedError
from qconvert.graph import input_shapes
from qconvert.passes.cut_heads import cut_heads
from qconvert.pipeline.checks import accepted
from qconvert.pipeline.data import preprocessing_for
from qconvert.pipeline.load import load
from qconvert.pipeline.models import Calibration, Models, optimized, prepared, quantized
from qconvert.pipeline.proof import Proof, prove
from qconvert.pipeline.samples import samples_for
from qconvert.pipeline.targets import target
from qconvert.target import WriteJob
from qconvert.verification.reference import FILE as REFERENCE
from qconvert.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.bundle import Written
    from qconvert.dataset.preprocessing import Preprocessing
    from qconvert.pipeline.job import Job
    from qconvert.pipeline.load import Loaded
    from qconvert.progress import Progress
    from qconvert.report import Report
    from qconvert.target import Backend

__all__ = ["Conversion", "convert"]

RECIPE: Final = "qconvert.toml"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion made.

    Attributes:
        bundle: The folder.
        manifest: Its manifest, verification included.
        layers: One entry per layer, with what calibration found out about it.
        numbers: Bytes of the model files, cost of an inference, and how long it takes here.
    """

    bundle: Path
    manifest: Manifest
    layers: tuple[Mapping[str, Any], ...]
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The keys of `convert --json`, but for time and memory."""
        commands = self.manifest.extra.get("commands")
        return {
            "bundle": str(self.bundle),
            "target": self.manifest.target,
            "files": [entry.path for entry in self.manifest.files],
            "layers": list(self.layers),
            "verification": self.manifest.verification,
            **({"report": report} if (report := self.manifest.extra.get("report")) else {}),
            **({"commands": commands} if commands else {}),
            "numbers": dict(self.numbers),
        }


def convert(job: Job, report: Report, progress: Progress) -> Conversion:
    """Convert a model and prove the result on its runtime.

    Args:
        job: What is asked for; `job.recipe.to` names the target.
        report: For warnings and what the passes did.
        progress: Told of calibration and verification.

    Raises:
        QconvertError: Any of its kinds; nothing is left behind, unless `job.keep_failed`.
    """
    backend = target(job.recipe.to)
    backend.require()
    backend.check_options(job.recipe.options)
    with staged(job.destination, force=job.force, keep_failed=job.keep_failed) as folder:
        loaded = load(job.files, job.recipe.reading, report)
        if job.recipe.options.get("cut_heads"):
            loaded = replace(loaded, model=cut_heads(loaded.model, report))
        samples = samples_for(loaded.model, job.calib, job.recipe)
        models = prepared(optimized(loaded.model, report), backend, job.recipe, report)
        _refuse_unsupported(backend, models.float_model)
        calibration = Calibration(samples.dataset, job.encodings)
        models = quantized(models, backend.policy, job.recipe, calibration, report, progress)
        write_job = WriteJob(
            models.model,
            models.float_model,
            folder,
            report,
            job.recipe.options,
            adopted=models.adopted,
            preprocessing=_preprocessing(job, loaded.model),
            samples=samples,
        )
        if models.quantized and samples.dataset is None:
            report.warn(
                "verified on random numbers, which say little about a quantized model; add "
                "--calib DATA, or run `qconvert verify DIR --data DATA`"
            )
        written = backend.write(write_job)
        manifest = _manifest(loaded, job, backend, written)
        proof = prove(backend, folder, manifest, models, samples, progress)
        (folder / RECIPE).write_text(job.recipe.to_toml(), encoding="utf-8")
        proof.save_reference(folder / REFERENCE)
        _check(backend, folder, manifest, report)
        _complete(manifest, folder, proof, report)
        numbers = _numbers(folder, manifest, proof)
        proof.judge(quantized=models.quantized, min_cosine=job.recipe.min_cosine, report=report)
    return Conversion(job.destination, manifest, _layers(manifest, models), numbers)


def _complete(manifest: Manifest, folder: Path, proof: Proof, report: Report) -> None:
    """Add what is known only now, and write the manifest: the last file of a bundle."""
    manifest.verification = proof.to_json()
    manifest.passes = [note.to_json() for note in report.notes]
    files = (
        *manifest.files,
        BundleFile(RECIPE, "configuration"),
        BundleFile(REFERENCE, "reference"),
    )
    manifest.files = [replace(entry, sha256=sha256(folder / entry.path)) for entry in files]
    manifest.write(folder)


def _numbers(folder: Path, manifest: Manifest, proof: Proof) -> dict[str, Any]:
    """What people ask first: how large, how much work, how fast."""
    sizes = {
        prefix: sum(
            (folder / entry.path).stat().st_size
            for entry in manifest.files
            if entry.role in {f"{prefix}model", f"{prefix}weights"}
        )
        for prefix in ("", "float-")
    }
    return {
        "bytes": {"model": sizes[""] or None, "float": sizes["float-"] or None},
        "cost": manifest.extra.get("cost"),
        "latency_ms": None if proof.speed is None else proof.speed.to_json(),
    }


def _check(backend: Backend, folder: Path, manifest: Manifest, report: Report) -> None:
    """Ask what the target will not like about the files; what it refuses is not left behind."""
    for finding in accepted(backend.check(folder, manifest)):
        report.warn(str(finding))


def _refuse_unsupported(backend: Backend, model: ir.Model) -> None:
    """Stop before anything is written when the target cannot express the model."""
    problems = backend.problems(model)
    if problems:
        raise UnsupportedError.of(
            problems,
            who=backend.name,
            fix="see `qconvert inspect` for what each target accepts",
        )


def _manifest(loaded: Loaded, job: Job, backend: Backend, written: Written) -> Manifest:
    """The manifest, but for the hashes and the verification."""
    source = loaded.source
    files = [source.model] + ([source.weights] if source.weights is not None else [])
    keys = dict(job.recipe.preprocess)
    return Manifest(
        target=backend.name,
        qconvert=__version__,
        source={path.name: sha256(path) for path in files},
        inputs=[
            {"name": name, "shape": list(shape), "preprocessing": keys or None}
            for name, shape in input_shapes(loaded.model).items()
        ],
        outputs=[
            {"name": value.name, "shape": _dimensions(value)}
            for value in loaded.model.graph.outputs
        ],
        layers=list(written.layers),
        files=list(written.files),
        blobs=dict(written.blobs),
        extra=dict(written.extra),
    )


def _preprocessing(job: Job, model: ir.Model) -> Preprocessing | None:
    """How pictures become the input, where the user has said all of it."""
    try:
        return preprocessing_for(job.recipe.preprocess, input_shapes(model))
    except CalibrationError:
        if job.calib is not None:
            raise
        return None


def _dimensions(value: ir.Value) -> list[int]:
    """The shape of an output; -1 where it depends on the data (detections found)."""
    assert value.shape is not None, value.name
    return [dim if isinstance(dim, int) else -1 for dim in value.shape]


def _layers(manifest: Manifest, models: Models) -> tuple[Mapping[str, Any], ...]:
    """The layers of the artifact, each with what the search says of it."""
    found = {entry.name: entry for entry in models.search}
    rows = []
    for row in manifest.layers:
        result = found.get(row.name)
        rows.append(
            {
                "name": row.name,
                "type": row.type,
                "bits": row.bits,
                "weight_scale": row.weight_scale,
                "input_scale": row.input_scale,
                "cosine": None if result is None else result.cosine_after,
                **({} if result is None else {"search": asdict(result)}),
                **dict(row.details),
            }
        )
    return tuple(rows)

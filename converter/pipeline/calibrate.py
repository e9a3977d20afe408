"""`calibrate`: scales found once, kept as JSON for any number of conversions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qconvert.bundle import housed
from qconvert.calibration.run import calibrate as search
from qconvert.errors import CalibrationError, UsageError
from qconvert.formats.encodings import write_encodings
from qconvert.passes.policies import ANY
from qconvert.pipeline.data import dataset_for
from qconvert.pipeline.load import load
from qconvert.pipeline.models import optimized, planned, prepared, settings
from qconvert.pipeline.targets import target

if TYPE_CHECKING:
    from qconvert.calibration.run import Calibrated
    from qconvert.pipeline.job import Job
    from qconvert.progress import Progress
    from qconvert.report import Report

__all__ = ["Scales", "calibrate"]


@dataclass(frozen=True, slots=True)
class Scales:
    """What a calibration found.

    Attributes:
        found: Encodings and one result per layer.
        images: How many samples the data holds.
    """

    found: Calibrated
    images: int

    def to_json(self) -> dict[str, Any]:
        """The keys of `calibrate --json`, but for time and memory."""
        return {
            "images": self.images,
            "activations": len(self.found.encodings.activations),
            "weights": len(self.found.encodings.weights),
            "layers": [asdict(layer) for layer in self.found.layers],
        }


def calibrate(job: Job, report: Report, progress: Progress) -> Scales:
    """Find scales for every activation and weight, and write them to `job.destination`.

    Raises:
        QconvertError: Any of its kinds; nothing is written then.
    """
    recipe, output = job.recipe, job.destination
    if job.calib is None:
        raise UsageError("there is no calibration data", fix="add --calib DATA")
    if output.is_dir():
        raise UsageError(f"'{output}' is a folder", fix="name a file, e.g. -o calib.json")
    if output.exists() and not job.force:
        raise UsageError(f"'{output}' exists", fix="choose another -o, or add --force")
    with housed(output.resolve()):
        policy = ANY if recipe.to is None else target(recipe.to).policy
        loaded = load(job.files, recipe.reading, report)
        models = optimized(loaded.model, report)
        if recipe.to is not None:
            models = prepared(models, target(recipe.to), recipe, report)
        if models.quantized:
            raise CalibrationError(
                "the model brings its own scales",
                why="it has QuantizeLinear and DequantizeLinear nodes",
                fix="convert it as it is",
            )
        dataset = dataset_for(loaded.model, job.calib, recipe.preprocess, jobs=recipe.jobs)
        layout = planned(models.float_model, policy, recipe, report)
        found = search(models.float_model, layout, dataset, settings(recipe), report, progress)
        write_encodings(output, found.encodings)
        return Scales(found, len(dataset))

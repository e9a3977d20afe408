"""`evaluate`: how often a classifier is right, as a float source or as a bundle."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from qconvert.bundle import Manifest
from qconvert.errors import CalibrationError
from qconvert.pipeline.checks import check_files
from qconvert.pipeline.data import dataset_for
from qconvert.pipeline.load import load
from qconvert.pipeline.targets import target_of
from qconvert.pipeline.verify import bundle_data
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.verification.evaluate import Evaluation
from qconvert.verification.evaluate import evaluate as measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from qconvert.dataset.reader import Dataset
    from qconvert.progress import Progress
    from qconvert.quant import F32
    from qconvert.recipe import Recipe
    from qconvert.report import Report

__all__ = ["evaluate"]


def evaluate(
    files: Sequence[Path],
    data: Path,
    labels: Path | None,
    recipe: Recipe,
    report: Report,
    progress: Progress,
) -> Evaluation:
    """Run a classifier on labelled images.

    Args:
        files: MODEL [WEIGHTS], or the folder of a bundle.
        data: Images or arrays.
        labels: File with a name and a class index per line; None: `y` of the npz.
        recipe: How to read the model; preprocessing.
        report: For warnings.
        progress: Told of every image.

    Returns:
        Rates; `agreement` with the bundle's float model, None for a source model.

    Raises:
        CalibrationError: If the data does not fit, or an image has no label.
        UsageError: If the model is no classifier.
    """
    with ExitStack() as stack:
        if len(files) == 1 and files[0].is_dir():
            manifest = Manifest.read(files[0])
            check_files(files[0], manifest)
            backend = target_of(files[0], manifest)
            backend.require()
            dataset = bundle_data(
                manifest, data, recipe.preprocess, labels=labels, jobs=recipe.jobs
            )
            runtime = stack.enter_context(closing(backend.open(files[0], manifest)))
            reference = stack.enter_context(closing(backend.open_float(files[0], manifest)))
            samples = _labelled(dataset)
            return measure(
                runtime, samples, reference=reference, progress=progress, total=len(dataset)
            )
        model = load(files, recipe.reading, report).model
        dataset = dataset_for(model, data, recipe.preprocess, labels=labels, jobs=recipe.jobs)
        source = stack.enter_context(OnnxRuntime(model, threads=recipe.jobs))
        return measure(source, _labelled(dataset), progress=progress, total=len(dataset))


def _labelled(dataset: Dataset) -> Iterator[tuple[str, Mapping[str, F32], int]]:
    """Samples with their labels.

    Raises:
        CalibrationError: At the first sample without one.
    """
    for sample in dataset:
        if sample.label is None:
            raise CalibrationError(
                f"'{sample.name}' has no label",
                why="accuracy needs the right answer of every image",
                fix="give --labels FILE (name and class index per line), or y in the npz",
            )
        yield sample.name, sample.inputs, sample.label

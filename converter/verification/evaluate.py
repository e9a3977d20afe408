"""Count how often a classifier is right, and how often it agrees with its float model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qconvert.errors import CalibrationError, UsageError
from qconvert.progress import Progress, Quiet
from qconvert.verification.metrics import same_first, standard_error
from qconvert.verification.verify import classifier_output

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qconvert.quant import F32
    from qconvert.runtimes import Runtime

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a classifier is on labelled data; rates are fractions 0..1.

    Attributes:
        images: How many were run, >= 1.
        top1: Share whose label has the highest score.
        top5: Share whose label is among the five highest (all of them below six classes).
        agreement: Share with the winner of the float model; None without one.
    """

    images: int
    top1: float
    top5: float
    agreement: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The keys of `evaluate --json`, with the standard error of each rate."""
        rates = {"top1": self.top1, "top5": self.top5, "agreement": self.agreement}
        errors = {
            f"{name}_stderr": None if rate is None else standard_error(rate, self.images)
            for name, rate in rates.items()
        }
        return {"images": self.images, **rates, **errors}


@dataclass(slots=True)
class _Counts:
    """Running counts."""

    images: int = 0
    top1: int = 0
    top5: int = 0
    agreed: int = 0


def _rank(scores: F32, label: int) -> int:
    """How many classes stand before `label`, 0 for the winner."""
    mine = scores[label]
    return int((scores > mine).sum() + (scores[:label] == mine).sum())


def _pick(outputs: Mapping[str, F32], wanted: str | None) -> str:
    """The output that holds the scores."""
    if wanted is not None and wanted not in outputs:
        raise UsageError(
            f"there is no output '{wanted}'", why=f"the outputs are {', '.join(outputs)}"
        )
    name = wanted or classifier_output(outputs)
    if name is None:
        shapes = ", ".join(f"'{key}' {list(array.shape)}" for key, array in outputs.items())
        raise UsageError(
            "the model is no classifier",
            why=f"top-1 needs one output of shape [1, classes]; it has {shapes}",
            fix="compare it with its float model: qconvert verify DIR --data IMAGES",
        )
    return name


def evaluate(
    runtime: Runtime,
    samples: Iterable[tuple[str, Mapping[str, F32], int]],
    *,
    reference: Runtime | None = None,
    output: str | None = None,
    progress: Progress | None = None,
    total: int = 0,
) -> Evaluation:
    """Run a classifier on labelled samples.

    Args:
        runtime: The classifier.
        samples: (name, network inputs, class index) of each image, consumed one at a time.
        reference: The float model, for `agreement`.
        output: The output that holds the scores; None: the one that looks like it.
        progress: Told of every image.
        total: How many samples there are, for `progress`; 0 when unknown.

    Raises:
        UsageError: If no output holds the scores of classes.
        CalibrationError: If there is no sample, or a label is not a class of the model.
    """
    listener = progress or Quiet()
    counts = _Counts()
    listener.start("Evaluating", total)
    try:
        for name, inputs, label in samples:
            outputs = runtime.run(inputs)
            output = _pick(outputs, output)
            scores = outputs[output].ravel()
            _count(counts, scores, label, name)
            if reference is not None:
                counts.agreed += same_first(reference.run(inputs)[output], scores)
            listener.advance(f"top-1 {counts.top1 / counts.images:.1%}")
    finally:
        listener.finish()
    if not counts.images:
        raise CalibrationError(
            "there is nothing to evaluate on",
            why="no image of the data has a label",
            fix="give --data and --labels of the same images",
        )
    agreement = None if reference is None else counts.agreed / counts.images
    return Evaluation(
        counts.images, counts.top1 / counts.images, counts.top5 / counts.images, agreement
    )


def _count(counts: _Counts, scores: F32, label: int, name: str) -> None:
    """Take in the scores [C] of one image."""
    if not 0 <= label < scores.size:
        raise CalibrationError(
            f"label {label} is not a class of the model",
            at=name,
            why=f"the model has {scores.size} classes, counted from 0",
            fix="give the labels the model was trained with",
        )
    counts.images += 1
    if np.isnan(scores).any():
        return  # an undefined ranking is never right
    rank = _rank(scores, label)
    counts.top1 += rank < 1
    counts.top5 += rank < 5

"""Run two networks on the same samples and say how far they are apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qconvert.errors import CalibrationError, VerificationError
from qconvert.progress import Progress, Quiet
from qconvert.verification.detections import align
from qconvert.verification.metrics import Figures, Totals, same_first

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import onnx_ir as ir

    from qconvert.quant import F32
    from qconvert.runtimes import Runtime

__all__ = ["Comparison", "Verification", "classifier_output", "compare", "detection_outputs"]

_ROUNDING_OF_SUM = 1e-3  # a softmax in float16 adds up to 1 within this


@dataclass(frozen=True, slots=True)
class Verification:
    """What a comparison measured.

    Attributes:
        runtime: Name and version of the candidate's runtime.
        samples: How many inputs were run.
        outputs: Output name → figures, in the network's order.
        top1_agreement: Share of samples, 0..1, with the same winner; None when no output is a
            classifier.
    """

    runtime: str
    samples: int
    outputs: Mapping[str, Figures]
    top1_agreement: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The `verification` object of `--json` and of the manifest."""
        return {
            "runtime": self.runtime,
            "samples": self.samples,
            "outputs": [
                {
                    "name": name,
                    "cosine": figures.cosine,
                    "snr_db": figures.snr_db,
                    "max_abs_error": figures.max_abs_error,
                }
                for name, figures in self.outputs.items()
            ],
            "top1_agreement": self.top1_agreement,
        }


def detection_outputs(model: ir.Model) -> frozenset[str]:
    """Names of the outputs that hold one row per object found.

    They are the only outputs of unknown size in the intermediate representation: `[K, 6]`, or
    `[1, 1, K, 7]`.
    """
    return frozenset(
        str(value.name)
        for value in model.graph.outputs
        if value.shape is not None and not value.shape.is_static() and value.shape[-1] in (6, 7)
    )


def classifier_output(outputs: Mapping[str, F32]) -> str | None:
    """Which output of a network holds the scores of classes.

    Such an output is `[1, C]` or `[1, C, 1, 1]` with C >= 2. Where several are (a face network
    gives scores, a box and landmarks), the one that is a probability distribution, and the one
    of most classes, and the last of those (auxiliary heads come first).

    Args:
        outputs: One sample's outputs.

    Returns:
        Its name; None when there is none, or no way to tell.
    """
    candidates = [
        name
        for name, array in outputs.items()
        if array.ndim >= 2
        and array.shape[1] >= 2
        and array.size == array.shape[1]
        and set(array.shape[2:]) <= {1}
    ]
    if len(candidates) > 1:
        candidates = [name for name in candidates if _is_distribution(outputs[name])]
    if not candidates:
        return None
    most = max(outputs[name].size for name in candidates)
    return [name for name in candidates if outputs[name].size == most][-1]


def _is_distribution(array: F32) -> bool:
    """Whether all values are in 0..1 and add up to 1."""
    total = float(np.sum(array, dtype=np.float64))
    return bool((array >= 0).all()) and abs(total - 1.0) <= _ROUNDING_OF_SUM


@dataclass(slots=True)
class Comparison:
    """Takes in pairs of outputs, one sample after the other.

    Attributes:
        detections: Outputs that are compared as sets of boxes.
        samples: How many were taken in.
    """

    detections: Collection[str] = ()
    samples: int = 0
    _totals: dict[str, Totals] = field(default_factory=dict, repr=False)
    _classifier: str | None = field(default=None, repr=False)
    _agreed: int = field(default=0, repr=False)

    def add(self, reference: Mapping[str, F32], candidate: Mapping[str, F32]) -> None:
        """Take in one sample: what both gave for the same input.

        Args:
            reference: Output name → array.
            candidate: The same names, arrays of the same sizes; more are passed over.

        Raises:
            VerificationError: If an output is missing, or has another number of elements.
        """
        if self.samples == 0:
            others = {k: v for k, v in reference.items() if k not in self.detections}
            self._classifier = classifier_output(others)
        for name, wanted in reference.items():
            if name not in candidate:
                raise VerificationError(
                    f"the artifact has no output '{name}'", why=f"it gives {sorted(candidate)}"
                )
            self._compare(name, wanted, candidate[name])
        if self._classifier is not None:
            name = self._classifier
            self._agreed += same_first(reference[name], candidate[name])
        self.samples += 1

    def _compare(self, name: str, wanted: F32, given: F32) -> None:
        """Take in one output of one sample."""
        if name in self.detections:
            try:
                wanted, given = align(wanted, given)
            except ValueError as error:
                raise VerificationError(
                    f"output '{name}' holds no detections", why=str(error), fix="convert again"
                ) from error
        elif wanted.size != given.size:
            raise VerificationError(
                f"output '{name}' has another shape in the artifact",
                why=f"it is {list(given.shape)}, and {list(wanted.shape)} in the reference",
            )
        self._totals.setdefault(name, Totals()).add(wanted, given)

    def result(self, runtime: str) -> Verification:
        """What was measured so far; `runtime` is the name of the candidate's."""
        agreed = None
        if self._classifier is not None and self.samples:
            agreed = self._agreed / self.samples
        figures = {name: totals.figures() for name, totals in self._totals.items()}
        return Verification(runtime, self.samples, figures, agreed)


def compare(
    reference: Runtime,
    candidate: Runtime,
    samples: Iterable[Mapping[str, F32]],
    *,
    detections: Collection[str] = (),
    progress: Progress | None = None,
    total: int = 0,
) -> Verification:
    """Run both on every sample and measure the candidate against the reference.

    Args:
        reference: Gives what is right.
        candidate: Gives what is measured; it has the reference's outputs at least.
        samples: Network inputs, consumed one at a time.
        detections: Outputs to compare as sets of boxes, see `detection_outputs`.
        progress: Told of every sample.
        total: How many samples there are, for `progress`; 0 when unknown.

    Raises:
        VerificationError: If an output is missing or of another size, or a runtime dies.
        CalibrationError: If there is no sample.
    """
    listener = progress or Quiet()
    comparison = Comparison(detections)
    listener.start("Verifying", total)
    try:
        for inputs in samples:
            comparison.add(reference.run(inputs), candidate.run(inputs))
            listener.advance()
    finally:
        listener.finish()
    if not comparison.samples:
        raise CalibrationError(
            "there is nothing to verify on", why="the data holds no sample", fix="give --data"
        )
    return comparison.result(candidate.name)

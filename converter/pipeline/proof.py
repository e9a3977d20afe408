"""Runs a fresh bundle beside its source model and its simulation, and judges it."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qconvert.passes.saturate import saturating_as
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.verification.reference import LIMIT, Case, save
from qconvert.verification.tolerance import FLOAT, SIMULATION, require_cosine
from qconvert.verification.verify import Comparison, Verification, detection_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.bundle import Manifest
    from qconvert.pipeline.models import Models
    from qconvert.pipeline.samples import Samples
    from qconvert.progress import Progress
    from qconvert.target import Backend

__all__ = ["Proof", "prove"]


@dataclass(frozen=True, slots=True)
class Proof:
    """What was measured on a fresh bundle.

    Attributes:
        model: The artifact against the source model, on its real runtime.
        simulation: The artifact against the Q/DQ simulation; None for a float bundle.
        cases: The first few inputs and outputs, for `reference.npz`.
    """

    model: Verification
    simulation: Verification | None
    cases: tuple[Case, ...]

    def judge(self, *, quantized: bool, min_cosine: float | None) -> None:
        """Refuse a bundle that does not do what it should.

        Raises:
            VerificationError: With the outputs that fall short and their figures.
        """
        if not quantized:
            require_cosine(self.model, FLOAT, against="the source model")
        if self.simulation is not None:
            require_cosine(self.simulation, SIMULATION, against="the quantized simulation")
        if min_cosine is not None:
            require_cosine(
                self.model,
                min_cosine,
                against="the source model (--min-cosine)",
                fix="keep sensitive layers in float, use more bits, or lower --min-cosine",
            )

    def save_reference(self, path: Path) -> None:
        """Write `reference.npz`."""
        save(path, self.cases)

    def to_json(self) -> dict[str, Any]:
        """The `verification` object of the manifest and of `--json`."""
        document = self.model.to_json()
        if self.simulation is not None:
            document["simulation"] = self.simulation.to_json()
        return document


def prove(
    backend: Backend,
    folder: Path,
    manifest: Manifest,
    models: Models,
    samples: Samples,
    progress: Progress,
) -> Proof:
    """Run source model, simulation and artifact on every sample.

    Raises:
        MissingRuntimeError: If the target's runtime is not installed.
        VerificationError: If the runtime refuses the artifact or dies on it.
    """
    detections = detection_outputs(models.source)
    against_source, against_simulation = Comparison(detections), Comparison(detections)
    cases: list[Case] = []
    with ExitStack() as stack:
        candidate = stack.enter_context(closing(backend.open(folder, manifest)))
        reference = stack.enter_context(OnnxRuntime(models.source))
        simulation = None
        if models.quantized:
            simulated_model = saturating_as(backend.policy, models.model)
            simulation = stack.enter_context(OnnxRuntime(simulated_model))
        progress.start("Verifying", samples.count)
        stack.callback(progress.finish)
        for inputs in samples:
            wanted, given = reference.run(inputs), candidate.run(inputs)
            against_source.add(wanted, given)
            simulated = {} if simulation is None else simulation.run(inputs)
            if simulation is not None:
                against_simulation.add(simulated, given)
            if len(cases) < LIMIT:
                cases.append(Case(inputs, wanted, simulated))
            progress.advance()
    return Proof(
        against_source.result(candidate.name),
        None if simulation is None else against_simulation.result(candidate.name),
        tuple(cases),
    )

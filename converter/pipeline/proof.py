"""Runs a fresh bundle beside its source model and its simulation, and judges it."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qconvert.passes.rounding import quantizing_as
from qconvert.pipeline.deployed import Deployed, deployed
from qconvert.pipeline.speed import Speed, Timed, race
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.verification.departure import Departure, first_departure
from qconvert.verification.reference import LIMIT, Case, save
from qconvert.verification.stepwise import Stepper, Steps, Tapped
from qconvert.verification.tolerance import FLOAT, SIMULATION, require_cosine, require_steps
from qconvert.verification.verify import Comparison, Verification, detection_outputs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from qconvert.bundle import Manifest
    from qconvert.pipeline.models import Models
    from qconvert.pipeline.samples import Samples
    from qconvert.progress import Progress
    from qconvert.quant import F32
    from qconvert.report import Report
    from qconvert.runtimes import Runtime
    from qconvert.target import Backend

__all__ = ["Proof", "prove"]


_STEPS: Final = 4
"""Samples that are also compared layer by layer."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was measured on a fresh bundle.

    Attributes:
        model: The artifact against the source model, on its real runtime.
        simulation: The artifact against the Q/DQ simulation, both running freely; None for a
            float bundle.
        steps: The artifact against the simulation layer by layer; None where the runtime shows
            no inner values.
        cases: The first few inputs and outputs, for `reference.npz`.
        recorded: Output → cosine of artifact and simulation on `cases`.
        largest_step: How many codes a layer may differ; None: any number.
        deployed: The artifact with the runtime's default options; None where they are no others.
        departure: Where a float artifact leaves the model; None when it does not, or when the
            runtime shows no inner values.
        speed: How long an inference takes here; no part of the verification.
    """

    model: Verification
    simulation: Verification | None
    steps: Steps | None
    cases: tuple[Case, ...]
    recorded: Mapping[str, float | None]
    largest_step: int | None = None
    deployed: Deployed | None = None
    departure: Departure | None = None
    speed: Speed | None = None

    def judge(self, *, quantized: bool, min_cosine: float | None, report: Report) -> None:
        """Refuse a bundle that does not do what it should.

        Where every layer follows its simulation, roundings that grow on the way through the
        network are no fault of the artifact; the user is told.

        Raises:
            VerificationError: With what falls short, and its figures.
        """
        if not quantized:
            require_cosine(self.model, FLOAT, against="the source model", departure=self.departure)
        if self.deployed is not None:
            self.deployed.warn(report)
        if self.simulation is not None:
            if self.steps is not None:
                require_steps(
                    self.steps,
                    SIMULATION,
                    samples=min(_STEPS, self.simulation.samples),
                    runtime=self.simulation.runtime,
                    largest=self.largest_step,
                )
                self._warn_of_growth(report)
            else:
                require_cosine(self.simulation, SIMULATION, against="the quantized simulation")
        if min_cosine is not None:
            require_cosine(
                self.model,
                min_cosine,
                against="the source model (--min-cosine)",
                fix="keep sensitive layers in float, use more bits, or lower --min-cosine",
            )

    def _warn_of_growth(self, report: Report) -> None:
        """Say so where single roundings change an output visibly."""
        assert self.simulation is not None
        grown = {
            name: -2.0 if figures.cosine is None else figures.cosine
            for name, figures in self.simulation.outputs.items()
            if figures.cosine is None or figures.cosine <= SIMULATION
        }
        if not grown:
            return
        worst = min(grown, key=grown.__getitem__)
        measured = "not finite" if grown[worst] < -1 else f"{grown[worst]:.4f}"
        report.warn(
            "every layer follows the simulation, but single roundings grow through this network: "
            f"{len(grown)} of {len(self.simulation.outputs)} outputs differ from the simulation, "
            f"'{worst}' most (cosine {measured})"
        )

    def save_reference(self, path: Path) -> None:
        """Write `reference.npz`."""
        save(path, self.cases)

    def to_json(self) -> dict[str, Any]:
        """The `verification` object of the manifest and of `--json`."""
        document = self.model.to_json()
        if self.simulation is not None:
            document["simulation"] = self.simulation.to_json()
            document["simulation"]["on_reference"] = dict(self.recorded)
            if self.steps is not None:
                document["simulation"]["layers"] = self.steps.to_json()
        if self.deployed is not None:
            document["as_deployed"] = self.deployed.to_json()
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
    outputs = [str(value.name) for value in models.source.graph.outputs]
    plain = [name for name in outputs if name not in detections]
    ran = _Ran(detections)
    with ExitStack() as stack:
        candidate = stack.enter_context(closing(backend.open(folder, manifest)))
        reference = stack.enter_context(OnnxRuntime(models.source))
        simulation, stepper, largest = None, None, backend.largest_step(manifest)
        if models.quantized:
            simulated_model = backend.simulate(
                quantizing_as(backend.policy, models.model), manifest
            )
            simulation = stack.enter_context(OnnxRuntime(simulated_model))
            if isinstance(candidate, Tapped):
                stepper = stack.enter_context(
                    closing(Stepper(models.model, plain, candidate.values, SIMULATION, largest))
                )
        progress.start("Verifying", samples.count)
        stack.callback(progress.finish)
        for index, inputs in enumerate(samples):
            wanted, given = reference.run(inputs), candidate.run(inputs)
            simulated = {} if simulation is None else simulation.run(inputs)
            ran.add(Case(inputs, wanted, simulated), given)
            if stepper is not None and isinstance(candidate, Tapped) and index < _STEPS:
                stepper.add(inputs, candidate)
            progress.advance()
        measured = ran.source.result(candidate.name)
        return Proof(
            measured,
            None if simulation is None else ran.simulation.result(candidate.name),
            None if stepper is None else stepper.result(),
            tuple(ran.cases),
            ran.recorded(),
            largest,
            deployed(backend, folder, manifest, ran.cases, ran.results, detections),
            None if models.quantized else _departure(models, candidate, measured, ran.cases),
            _speed(backend, folder, manifest, candidate, ran.cases),
        )


class _Ran:
    """What came out for the samples so far, measured, and the first few of them whole."""

    def __init__(self, detections: Collection[str]) -> None:
        self.source = Comparison(detections)
        self.simulation = Comparison(detections)
        self._on_reference = Comparison(detections)
        self.cases: list[Case] = []
        self.results: list[Mapping[str, F32]] = []

    def add(self, case: Case, given: Mapping[str, F32]) -> None:
        """Take in what source and simulation gave for an input, and what the artifact gave."""
        self.source.add(case.outputs, given)
        if case.simulated:
            self.simulation.add(case.simulated, given)
        if len(self.cases) < LIMIT:
            self.cases.append(case)
            self.results.append(given)
            self._on_reference.add(case.simulated, given)

    def recorded(self) -> dict[str, float | None]:
        """Output → cosine of artifact and simulation on the cases that are kept."""
        found = self._on_reference.result("").outputs
        return {name: figures.cosine for name, figures in found.items()}


def _speed(
    backend: Backend, folder: Path, manifest: Manifest, candidate: Runtime, cases: Sequence[Case]
) -> Speed | None:
    """The artifact beside its float model, where it has one; None where time says nothing."""
    if not cases or not isinstance(candidate, Timed):
        return None
    if not manifest.quantized:
        return race(candidate, None, cases[0].inputs)
    with closing(backend.open_float(folder, manifest)) as float_model:
        base = float_model if isinstance(float_model, Timed) else None
        return race(candidate, base, cases[0].inputs)


def _departure(
    models: Models, candidate: Runtime, measured: Verification, cases: Sequence[Case]
) -> Departure | None:
    """Where a float artifact leaves the model, when an output falls short."""
    short = any(f.cosine is None or not f.cosine > FLOAT for f in measured.outputs.values())
    if not short or not isinstance(candidate, Tapped):
        return None
    found = (first_departure(models.model, candidate, case.inputs, FLOAT) for case in cases)
    return next((departure for departure in found if departure is not None), None)

"""What a comparison must reach for an artifact to count as converted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qconvert.errors import VerificationError

if TYPE_CHECKING:
    from qconvert.verification.departure import Departure
    from qconvert.verification.metrics import Figures
    from qconvert.verification.stepwise import Steps
    from qconvert.verification.verify import Verification

__all__ = ["FLOAT", "SIMULATION", "require_cosine", "require_exact", "require_steps"]

FLOAT: Final = 0.9999
"""Cosine of a float artifact with the source model: above this."""

SIMULATION: Final = 0.999
"""Cosine of a quantized artifact with its simulation (the Q/DQ model): above this."""


def require_cosine(
    verification: Verification,
    above: float,
    *,
    against: str,
    fix: str = "",
    departure: Departure | None = None,
) -> None:
    """Refuse an artifact that has an output whose cosine is not above a bound.

    Args:
        verification: What was measured.
        above: The bound, -1..1, itself not enough.
        against: What it was measured against, e.g. `the float model`.
        fix: What the user can do.
        departure: Where the artifact leaves the model, if that is known.

    Raises:
        VerificationError: Names every output that falls short, with its figures. A cosine that is
            not finite falls short.
    """
    short = {
        name: figures
        for name, figures in verification.outputs.items()
        if figures.cosine is None or not figures.cosine > above
    }
    if short:
        error = _refusal(verification, short, f"a cosine above {above:g} with {against}", fix)
        _explain(error, departure)
        raise error


def require_steps(
    steps: Steps, above: float, *, samples: int, runtime: str, largest: int | None = None
) -> None:
    """Refuse an artifact with a layer that does not follow its simulation.

    Args:
        steps: What was measured.
        above: Bound on every cosine, itself not enough.
        samples: How many inputs were run.
        runtime: What the artifact runs on.
        largest: How many codes a layer may differ, which is asked for instead of a cosine: at few
            bits one code is a large part of a value. None: codes do not matter.

    Raises:
        VerificationError: Names the first layer that leaves the tolerance, and the worst.
    """
    if largest is None and not steps.cosine > above:
        measured = "not finite" if steps.cosine != steps.cosine else f"{steps.cosine:.6f}"
        error = VerificationError(
            f"the artifact leaves its simulation on {samples} sample{'s' * (samples != 1)}",
            at=f"value '{steps.worst}' in {runtime}",
            why=f"from the same inputs verification asks for a cosine above {above:g} at every "
            f"layer; measured {measured}",
        )
        _explain(error, steps.departure)
        raise error
    if largest is not None and steps.largest > largest:
        raise VerificationError(
            f"the artifact leaves its simulation on {samples} sample{'s' * (samples != 1)}",
            at=f"value '{steps.furthest}' in {runtime}",
            why=f"from the same input codes a layer may differ by {largest}; "
            f"measured {steps.largest}",
        )


def _explain(error: VerificationError, departure: Departure | None) -> None:
    """Add where the artifact leaves what it should do."""
    if departure is not None:
        error.why += f"\n       {departure}"
        error.details["departure"] = departure.to_json()


def require_exact(verification: Verification, *, against: str) -> None:
    """Refuse an artifact that differs from its reference in any bit.

    Raises:
        VerificationError: Names every output that differs, with its figures.
    """
    different = {
        name: figures
        for name, figures in verification.outputs.items()
        if figures.max_abs_error is None or figures.max_abs_error > 0
    }
    if different:
        raise _refusal(verification, different, f"the very numbers of {against}", "")


def _refusal(
    verification: Verification, outputs: dict[str, Figures], rule: str, fix: str
) -> VerificationError:
    """The error for `outputs`, which break `rule`."""
    names = ", ".join(f"'{name}'" for name in outputs)
    rows = [f"'{name}': {_row(figures)}" for name, figures in outputs.items()]
    count = verification.samples
    what = f"the artifact does not do what the model does on {count} sample{'s' * (count != 1)}"
    return VerificationError(
        what,
        at=f"output{'s' * (len(outputs) > 1)} {names} in {verification.runtime}",
        why=f"verification asks for {rule}; measured " + "; ".join(rows),
        fix=fix,
    )


def _row(figures: Figures) -> str:
    """The figures of one output in a message."""
    snr, error = _text(figures.snr_db, ".1f"), _text(figures.max_abs_error, ".3g")
    return f"cosine {_text(figures.cosine, '.6f')}, SNR {snr} dB, max abs error {error}"


def _text(value: float | None, layout: str) -> str:
    """A figure in a message."""
    return "not finite" if value is None else format(value, layout)

"""What a user may ask of an integer program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qconvert.errors import UsageError
from qconvert.formats.hardware.files import FORMATS
from qconvert.formats.hardware.order import Layout
from qconvert.integer.program import ROUNDINGS, Rounding

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EMITTED", "Options", "check_options"]

EMITTED: Final = ("npy", *FORMATS, "c")
"""Formats of files with codes."""

_CHOICES: Final[Mapping[str, tuple[object, ...]]] = {
    "requantize": ROUNDINGS,
    "multiplier_bits": (31, 16, 15),
    "bias_bits": (32, 16),
}


@dataclass(frozen=True, slots=True)
class Options:
    """Choices about an integer program.

    Attributes:
        requantize: How RS rounds.
        multiplier_bits: Width of multipliers.
        bias_bits: Width of biases.
        accumulator_bits: Declared width of sums; None: 32, or what the network needs if more.
        integer_only: Whether float boundaries are an error.
        golden: How many inputs get golden vectors.
        accumulators: Whether golden vectors include raw sums.
        emit: Formats to write, of `EMITTED`; `.npy` is always there.
        layout: In which order codes lie in the files for tools.
    """

    requantize: Rounding = "half_up"
    multiplier_bits: int = 31
    bias_bits: int = 32
    accumulator_bits: int | None = None
    integer_only: bool = False
    golden: int = 1
    accumulators: bool = False
    emit: tuple[str, ...] = ()
    layout: str = "oihw"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """The options among a job's; others are passed over.

        Raises:
            UsageError: If a value does not fit.
        """
        for name, allowed in _CHOICES.items():
            if name in given and given[name] not in allowed:
                raise _refusal(name, given[name], f"one of {', '.join(map(str, allowed))}")
        for name, least, most in (("accumulator_bits", 8, 62), ("golden", 0, 64)):
            value = given.get(name)
            if value is not None and not least <= value <= most:
                raise _refusal(name, value, f"{least} to {most}")
        for form in given.get("emit", ()):
            if form not in EMITTED:
                raise _refusal("emit", form, f"one or more of {', '.join(EMITTED)}")
        options = cls(**{name: given[name] for name in cls.__dataclass_fields__ if name in given})
        Layout.parse(options.layout)
        if options.requantize == "tflite_double":
            if options.multiplier_bits != 31:
                raise _refusal(
                    "multiplier_bits", options.multiplier_bits, "31 with tflite_double rounding"
                )
            if (options.accumulator_bits or 32) > 32:
                raise _refusal(
                    "accumulator_bits",
                    options.accumulator_bits,
                    "at most 32 with tflite_double rounding",
                )
        return options


def check_options(given: Mapping[str, Any]) -> None:
    """Refuse options that do not fit; see `Options.of`."""
    Options.of(given)


def _refusal(name: str, value: object, rule: str) -> UsageError:
    """The error for a value that does not fit."""
    option = name.replace("_", "-")
    return UsageError(f"--{option} is {value}", why=f"it is {rule}", fix="correct it")

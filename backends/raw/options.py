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
    "output_bits": (2, 3, 4, 5, 6, 7, 8, 16),
}
_WHOLE: Final = (int, "a whole number")
_KINDS: Final[Mapping[str, tuple[type, str]]] = {
    "multiplier_bits": _WHOLE,
    "bias_bits": _WHOLE,
    "accumulator_bits": _WHOLE,
    "golden": _WHOLE,
    "requantize": (str, "a text"),
    "layout": (str, "a text"),
    "emit": (tuple, "a list of texts"),
}
"""What a configuration file may hold for an option."""


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
        _check_values(given)
        options = cls(**{name: given[name] for name in cls.__dataclass_fields__ if name in given})
        Layout.parse(options.layout)
        return options


def _check_values(given: Mapping[str, Any]) -> None:
    """Refuse values that do not fit whatever the others are."""
    for name, (kind, words) in _KINDS.items():
        value = given.get(name)
        if value is not None and type(value) is not kind:
            raise _refusal(name, value, words)
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
    if given.get("requantize") == "tflite_double":
        _check_two_roundings(given)


def _check_two_roundings(given: Mapping[str, Any]) -> None:
    """Refuse what TensorFlow Lite's two roundings know nothing of."""
    allowed = {"multiplier_bits": (31,), "accumulator_bits": range(8, 33)}
    words = {"multiplier_bits": "31", "accumulator_bits": "at most 32"}
    for name, fitting in allowed.items():
        if given.get(name) is not None and given[name] not in fitting:
            raise _refusal(name, given[name], f"{words[name]} with tflite_double rounding")


def check_options(given: Mapping[str, Any]) -> None:
    """Refuse options that do not fit; see `Options.of`."""
    Options.of(given)


def _refusal(name: str, value: object, rule: str) -> UsageError:
    """The error for a value that does not fit."""
    option = name.replace("_", "-")
    return UsageError(f"--{option} is {value}", why=f"it is {rule}", fix="correct it")

"""What the keys of a recipe may hold: kinds of TOML values, ranges, and sections of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qconvert.errors import UsageError
from qconvert.plan import LayerChoice
from qconvert.quant import LOG2_BITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["LOG2_WIDTH", "WIDTHS", "kind", "layer_choice", "native", "one_of", "plain", "within"]

WIDTHS: Final = (*range(2, 9), 16)
LOG2_WIDTH: Final = 4
"""Exponents unless another width is asked for: a sign and seven magnitudes, six octaves."""


def kind(annotation: str) -> tuple[Callable[[object], bool], str]:
    """What a value of a field with this annotation must be: a test, and words for it."""
    text = (lambda value: isinstance(value, str), "a text")
    return _KINDS.get(annotation.removesuffix(" | None"), text)


def _is_whole(value: object) -> bool:
    """Whether a TOML value is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    """Whether a TOML value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_shape(value: object) -> bool:
    """Whether a TOML value is a list of integers."""
    return isinstance(value, tuple) and all(map(_is_whole, value))


def _is_texts(value: object) -> bool:
    """Whether a TOML value is a list of texts."""
    return isinstance(value, tuple) and all(isinstance(entry, str) for entry in value)


def _table_of(entry: Callable[[object], bool]) -> Callable[[object], bool]:
    """Whether a TOML value is a table of such entries."""
    return lambda value: isinstance(value, dict) and all(map(entry, value.values()))


_KINDS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "int": (_is_whole, "a whole number"),
    "float": (_is_number, "a number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "tuple[str, ...]": (_is_texts, "a list of texts"),
    "Mapping[str, int]": (_table_of(_is_whole), "a table of whole numbers"),
    "Mapping[str, float]": (_table_of(_is_number), "a table of numbers"),
    "Mapping[str, tuple[int, ...]]": (_table_of(_is_shape), "a table of lists of whole numbers"),
    "Mapping[str, Mapping[str, Any]]": (
        _table_of(lambda value: isinstance(value, dict)),
        'sections like [layer."conv*"]',
    ),
    "Mapping[str, Any]": (lambda value: isinstance(value, dict), "a table"),
}


def one_of(option: str, value: object, allowed: tuple[object, ...]) -> None:
    """Refuse a value that is not among those allowed."""
    if value not in allowed:
        names = ", ".join(str(entry) for entry in allowed if entry is not None)
        raise UsageError(f"--{option} is {value}", why=f"it is one of {names}", fix="choose one")


def within(option: str, least: float, value: float | None, most: float | None) -> None:
    """Refuse a number that is out of range; None is no number."""
    if value is None or (value >= least and (most is None or value <= most)):
        return
    wanted = f"{least} or more" if most is None else f"{least} to {most}"
    raise UsageError(f"--{option} is {value}", why=f"it is {wanted}", fix="correct it")


def native(value: Any) -> Any:  # noqa: ANN401 - any TOML value
    """TOML arrays as tuples, also within tables."""
    if isinstance(value, list):
        return tuple(native(entry) for entry in value)
    if isinstance(value, dict):
        return {key: native(entry) for key, entry in value.items()}
    return value


def plain(value: Any) -> Any:  # noqa: ANN401 - any TOML value
    """What tomli_w writes: tuples as lists."""
    if isinstance(value, tuple | list):
        return [plain(entry) for entry in value]
    if hasattr(value, "items"):
        return {key: plain(entry) for key, entry in value.items() if entry is not None}
    return value


_SECTION: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "float": (lambda value: isinstance(value, bool), "true or false"),
    "bits": (_is_whole, "a whole number"),
    "weight-bits": (_is_whole, "a whole number"),
    "activation-bits": (_is_whole, "a whole number"),
    "log2-weights": (lambda value: isinstance(value, bool), "true or false"),
}
"""The keys of a section `[layer."GLOB"]`."""


def layer_choice(where: str, section: Mapping[str, Any]) -> LayerChoice:
    """What a section says about its layers.

    Args:
        where: How to name the section in a message.
        section: Its keys, as in TOML.

    Raises:
        UsageError: If a key is unknown or a value does not fit.
    """
    for key, value in section.items():
        if key not in _SECTION:
            raise UsageError(
                f"unknown key '{key}' in {where}",
                why=f"a layer has {', '.join(_SECTION)}",
                fix="correct or remove it",
            )
        fits, wanted = _SECTION[key]
        if not fits(value):
            raise UsageError(
                f"the value of '{key}' in {where} does not fit",
                why=f"it is {value!r}, and should be {wanted}",
                fix="correct it",
            )
        if wanted == "a whole number" and value not in WIDTHS:
            raise UsageError(
                f"'{key}' in {where} is {value}",
                why=f"it is one of {', '.join(map(str, WIDTHS))}",
                fix="choose one",
            )
    exponents = section.get("log2-weights")
    weights = section.get("weight-bits", section.get("bits", LOG2_WIDTH if exponents else None))
    if exponents and weights not in LOG2_BITS:
        raise UsageError(
            f"the weights in {where} cannot be exponents of {weights} bits",
            why=f"such codes have {min(LOG2_BITS)} to {max(LOG2_BITS)} bits",
            fix="give a weight-bits among them",
        )
    return LayerChoice(
        keep_float=section.get("float"),
        weight_bits=weights,
        activation_bits=section.get("activation-bits", section.get("bits")),
        log2_weights=exponents,
    )

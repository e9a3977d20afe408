"""JSON from outside: read strictly, and held against a JSON Schema."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jsonschema import ValidationError

__all__ = ["misfits", "read"]

_SHOWN: Final = 4
_LONGEST: Final = 80
_WORDS: Final[Mapping[str, str]] = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a text",
}

_RULES: Final[Mapping[object, str]] = {
    "pattern": "which does not match {}",
    "minimum": "which is below {}",
    "exclusiveMinimum": "which is not above {}",
    "maximum": "which is above {}",
    "minItems": "which has fewer than {} entries",
    "maxItems": "which has more than {} entries",
}


def read(path: Path) -> Any:  # noqa: ANN401 - any JSON at all
    """The document in a file.

    Raises:
        OSError: If there is no such file, or it cannot be read.
        ValueError: If it holds no JSON, or a number that is not finite.
    """
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(text: str) -> float:
    """A number of a document."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:_LONGEST]} is not a finite number")
    return number


def misfits(document: object, schema: Mapping[str, Any]) -> str:
    """Where a document departs from a JSON Schema, in words; empty when nowhere."""
    from jsonschema import Draft202012Validator  # a tenth of a second that others need not wait

    errors = sorted(
        Draft202012Validator(schema).iter_errors(document), key=lambda error: error.json_path
    )
    rows = [_words(error) for error in errors[:_SHOWN]]
    return "; ".join(rows) + (f"; {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else "")


def _words(error: ValidationError) -> str:
    """One departure."""
    place = error.json_path.removeprefix("$").removeprefix(".") or "the document"
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return f"{place} has no {', '.join(missing)}"
    given = json.dumps(error.instance, ensure_ascii=False)
    given = given if len(given) <= _LONGEST else given[:_LONGEST] + "..."
    return f"{place} is {given}, {_wanted(error)}"


def _wanted(error: ValidationError) -> str:
    """What should stand there instead."""
    value: Any = error.validator_value
    options = value if isinstance(value, list) else [value]
    if error.validator == "type":
        return f"not {' or '.join(_WORDS[kind] for kind in options)}"
    if error.validator in {"enum", "const"}:
        return f"not {' or '.join(json.dumps(option) for option in options)}"
    return _RULES.get(error.validator, "which does not fit").format(value)

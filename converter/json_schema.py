"""Where a document departs from a JSON Schema, in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jsonschema import ValidationError

__all__ = ["misfits"]

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

_RULES: Final[Mapping[str, str]] = {
    "pattern": "which does not match {}",
    "minimum": "which is below {}",
    "exclusiveMinimum": "which is not above {}",
    "maximum": "which is above {}",
    "minItems": "which has fewer than {} entries",
    "maxItems": "which has more than {} entries",
}


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
        required: Any = error.validator_value
        there: Any = error.instance
        missing = [key for key in required if key not in there]
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
    return _RULES.get(str(error.validator), "which does not fit").format(value)

"""Whether a manifest is what `schema.json` says it is."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from qconvert.errors import VerificationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_manifest", "schema"]

_SHOWN: Final = 4
_LONGEST: Final = 160


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of a raw bundle's manifest."""
    text = files("qconvert.backends.raw").joinpath("schema.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def check_manifest(path: Path) -> None:
    """Compare a manifest with the schema.

    Raises:
        VerificationError: Names the places that do not fit.
    """
    from jsonschema import Draft202012Validator  # a tenth of a second that others need not wait

    document = json.loads(path.read_text(encoding="utf-8"))
    errors = sorted(
        Draft202012Validator(schema()).iter_errors(document), key=lambda error: error.json_path
    )
    if not errors:
        return
    rows = [f"{error.json_path}: {error.message[:_LONGEST]}" for error in errors[:_SHOWN]]
    more = f"; {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
    raise VerificationError(
        "the manifest does not follow the schema of raw bundles",
        at=str(path),
        why="; ".join(rows) + more,
        fix="convert the model again",
    )

"""Whether a manifest is what `schema.json` says it is."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from qconvert.content import read_json
from qconvert.errors import VerificationError
from qconvert.json_schema import misfits

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_manifest", "schema"]


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
    wrong = misfits(read_json(path, "the manifest"), schema())
    if not wrong:
        return
    raise VerificationError(
        "the manifest does not follow the schema of raw bundles",
        at=str(path),
        why=wrong,
        fix="convert the model again",
    )

"""What `manifest.json` holds in a bundle of any target, as JSON Schema.

Keys of one target stand beside these; its backend knows them.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

__all__ = ["SCHEMA"]

_Schema: TypeAlias = dict[str, Any]

_TEXT: Final[_Schema] = {"type": "string"}
_OBJECT: Final[_Schema] = {"type": "object"}
_FIGURE: Final[_Schema] = {"type": ["number", "null"]}
_INSIDE: Final = r"^(?!/)(?!(.*/)?\.\.(/|$))[^\\:\x00-\x1f]+$"
"""A path that stays within the bundle: relative, without `..`, with forward slashes."""
_LARGEST: Final = 2**31 - 1


def _object(required: str = "", /, **properties: _Schema) -> _Schema:
    """An object with these keys; more are allowed."""
    return {"type": "object", "properties": properties, "required": required.split()}


def _list(items: _Schema) -> _Schema:
    return {"type": "array", "items": items}


def _table(values: _Schema) -> _Schema:
    return {"type": "object", "additionalProperties": values}


def _sizes(least: int) -> _Schema:
    return _list({"type": "integer", "minimum": least, "maximum": _LARGEST})


_MEASURED: Final[dict[str, _Schema]] = {
    "outputs": _list(
        _object("name cosine", name=_TEXT, cosine=_FIGURE, snr_db=_FIGURE, max_abs_error=_FIGURE)
    ),
    "top1_agreement": _FIGURE,
}

SCHEMA: Final[_Schema] = _object(
    "target qconvert source inputs outputs",
    target=_TEXT,
    qconvert=_TEXT,
    source=_table(_TEXT),
    inputs=_list(
        _object(
            "name shape preprocessing",
            name=_TEXT,
            shape=_sizes(1),
            preprocessing={"type": ["object", "null"]},
        )
    ),
    outputs=_list(_object("name shape", name=_TEXT, shape=_sizes(-1))),
    layers=_list(
        _object(
            "name type bits",
            name=_TEXT,
            type=_TEXT,
            bits={"type": "integer", "minimum": 1, "maximum": 64},
            weight_scale={"type": ["array", "null"], "items": {"type": "number"}},
            input_scale=_FIGURE,
            details=_OBJECT,
        )
    ),
    files=_list(
        {
            **_object(
                "path role sha256",
                path={"type": "string", "pattern": _INSIDE},
                role=_TEXT,
                sha256={"type": "string", "pattern": "^[0-9a-f]{64}$"},
            ),
            "additionalProperties": False,
        }
    ),
    verification={
        **_object(**_MEASURED, simulation=_object(**_MEASURED, on_reference=_table(_FIGURE))),
        "type": ["object", "null"],
    },
    blobs=_table(_TEXT),
    passes=_list(_table(_TEXT)),
)

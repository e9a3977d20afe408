"""Encodings as JSON: one calibration, kept for any number of conversions.

    {
     "format": "qconvert.encodings",
     "version": 1,
     "activations": {"<value name>": PARAMETERS, ...},
     "weights": {"<initializer name>": PARAMETERS, ...},
     "rounded": {"<initializer name>": {"type": "int8", "shape": [...], "base64": "..."}, ...},
     "biases": {"<initializer name>": [...], ...}
    }

PARAMETERS: `scale` (a number, or a list per channel), `zero_point` (likewise; left out when all
are 0), `bits`, `signed`, `symmetric`, and `axis` with a list. real = scale * (code - zero_point);
with `log2` true the codes are exponents (see `qconvert.quant`).
`rounded` holds integer codes where rounding to nearest was improved upon, in C order, little
endian; `biases` holds corrected biases. Numbers have 9 significant digits, so float32 comes back
as it was, and the same encodings give the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from qconvert.content import read_json
from qconvert.errors import ModelFormatError
from qconvert.quant import Encodings, QParams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from qconvert.quant import F32
    from qconvert.report import Report

    Codes = npt.NDArray[np.int8] | npt.NDArray[np.int16]

__all__ = ["FORMAT", "VERSION", "read_encodings", "write_encodings"]

Entry = TypeVar("Entry")

FORMAT: Final = "qconvert.encodings"
VERSION: Final = 1
_SECTIONS: Final = ("activations", "weights", "rounded", "biases")
_TYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "int8": np.dtype("<i1"),
    "int16": np.dtype("<i2"),
}


def write_encodings(path: Path, encodings: Encodings) -> None:
    """Write encodings; the file appears whole or not at all.

    Args:
        path: The JSON file; replaced if it exists.
        encodings: What calibration found.
    """
    document = {
        "format": FORMAT,
        "version": VERSION,
        "activations": {name: _plain(p) for name, p in encodings.activations.items()},
        "weights": {name: _plain(p) for name, p in encodings.weights.items()},
        "rounded": {name: _packed(codes) for name, codes in encodings.rounded.items()},
        "biases": {name: _numbers(bias) for name, bias in encodings.biases.items()},
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_encodings(path: Path, report: Report) -> Encodings:
    """Read encodings.

    Args:
        path: What `write_encodings` wrote, perhaps edited by hand.
        report: Is told of sections that this release does not know.

    Returns:
        The encodings.

    Raises:
        ModelFormatError: If the file is missing, damaged, of another format or version, or a
            value is out of its range; names the tensor.
    """
    document = _document(path)
    if document.get("format") != FORMAT:
        raise ModelFormatError(
            "this is no encodings file",
            at=str(path),
            why=f"its format is {document.get('format')!r}, not '{FORMAT}'",
            fix="give the file that `qconvert calibrate -o` wrote",
        )
    if document.get("version") != VERSION:
        raise ModelFormatError(
            f"the encodings have version {document.get('version')!r}",
            at=str(path),
            why=f"this release reads version {VERSION}",
            fix="calibrate again, or use the release that wrote it",
        )
    for section in sorted(set(document) - {"format", "version", *_SECTIONS}):
        report.warn(f"'{path.name}' has a section '{section}' that is not known; it has no effect")
    encodings = Encodings(
        activations=_section(document, "activations", _parameters, path),
        weights=_section(document, "weights", _parameters, path),
        rounded=_section(document, "rounded", _unpacked, path),
        biases=_section(document, "biases", _bias, path),
    )
    _check_codes(encodings, path)
    return encodings


def _document(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    document = read_json(path, "the encodings file")
    if not isinstance(document, dict):
        raise ModelFormatError("this is no encodings file", at=str(path), why="no JSON object")
    return document


def _section(
    document: Mapping[str, Any], name: str, read: Callable[[Any], Entry], path: Path
) -> dict[str, Entry]:
    """One section, each entry read."""
    entries = document.get(name, {})
    if not isinstance(entries, dict):
        raise ModelFormatError(f"'{name}' is not a JSON object", at=str(path))
    found = {}
    for key, entry in entries.items():
        try:
            found[key] = read(entry)
        except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else str(error)[:200]
            raise ModelFormatError(
                "an encoding does not make sense", at=f"{path}, {name}, '{key}'", why=why
            ) from error
    return found


def _numbers(values: npt.NDArray[Any]) -> list[float]:
    """float32 values with as many digits as they need."""
    return [float(f"{value:.9g}") for value in values.ravel().tolist()]


def _plain(params: QParams) -> dict[str, Any]:
    """Parameters as JSON has them."""
    single = params.axis is None
    scales = _numbers(params.scale)
    entry: dict[str, Any] = {"scale": scales[0] if single else scales}
    if params.zero_point.any():
        points = params.zero_point.ravel().tolist()
        entry["zero_point"] = points[0] if single else points
    entry.update(bits=params.bits, signed=params.signed, symmetric=params.symmetric)
    if not single:
        entry["axis"] = params.axis
    if params.log2:
        entry["log2"] = True
    return entry


def _parameters(entry: Any) -> QParams:  # noqa: ANN401 - any JSON at all
    """Parameters from JSON.

    Raises:
        KeyError, TypeError, ValueError: If it is something else.
    """
    bits, axis = entry["bits"], entry.get("axis")
    flags = {key: entry[key] for key in ("signed", "symmetric")} | {
        "log2": entry.get("log2", False)
    }
    for key, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"{key} is {flag!r}, not true or false")
    if not _is_whole(bits) or not 2 <= bits <= 16:
        raise ValueError(f"bits is {bits!r}, not 2 to 16")
    if axis is not None and not (_is_whole(axis) and 0 <= axis < 16):
        raise ValueError(f"axis is {axis!r}")
    scale = _float32(entry["scale"], ndim=0 if axis is None else 1)
    points = np.asarray(entry.get("zero_point", np.zeros(scale.shape, np.int32)))
    if points.dtype.kind not in "iu":
        raise TypeError("zero_point is not made of whole numbers")
    if points.size and int(np.abs(points).max()) > 1 << 16:
        raise ValueError("zero_point is out of range")
    params = QParams(
        scale,
        np.asarray(points, np.int32),
        bits=bits,
        axis=axis,
        **flags,
    )
    if not ((params.zero_point >= params.low) & (params.zero_point <= params.high)).all():
        raise ValueError(f"zero_point is not within {params.low}..{params.high}")
    return params


def _float32(value: Any, *, ndim: int) -> F32:  # noqa: ANN401 - any JSON at all
    """A finite float32 number or list."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != ndim:
        raise TypeError("it is not a number" if ndim == 0 else "it is not a list of numbers")
    with np.errstate(over="ignore"):
        stored = array.astype(np.float32)
    if not np.isfinite(stored).all():
        raise ValueError("a number is not finite in float32")
    return stored


def _is_whole(value: object) -> bool:
    """Whether JSON held a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def _packed(codes: Codes) -> dict[str, Any]:
    """Integer codes as JSON has them."""
    kind = "int8" if codes.dtype.itemsize == 1 else "int16"
    raw = np.ascontiguousarray(codes, _TYPES[kind]).tobytes()
    text = base64.b64encode(raw).decode("ascii")
    return {"type": kind, "shape": list(codes.shape), "base64": text}


def _unpacked(entry: Any) -> Codes:  # noqa: ANN401 - any JSON at all
    """Integer codes from JSON.

    Raises:
        KeyError, TypeError, ValueError: If it is something else.
    """
    kind, shape = _TYPES[entry["type"]], entry["shape"]
    if not (isinstance(shape, list) and all(_is_whole(side) and side >= 0 for side in shape)):
        raise TypeError(f"shape is {shape!r}")
    raw = base64.b64decode(entry["base64"], validate=True)
    if len(raw) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{len(raw)} bytes do not fill {shape} of {entry['type']}")
    codes: Codes = np.frombuffer(raw, kind).reshape(shape)
    return codes


def _bias(entry: Any) -> F32:  # noqa: ANN401 - any JSON at all
    """A corrected bias from JSON."""
    return _float32(entry, ndim=1)


def _check_codes(encodings: Encodings, path: Path) -> None:
    """Refuse codes without parameters, or outside their range."""
    for name, codes in encodings.rounded.items():
        params = encodings.weights.get(name)
        if params is None:
            why = "there are codes, but no parameters in 'weights'"
        elif codes.size and (codes.min() < params.low or codes.max() > params.high):
            why = f"a code is not within {params.low}..{params.high}"
        else:
            continue
        raise ModelFormatError(
            "rounded weights do not make sense", at=f"{path}, rounded, '{name}'", why=why
        )

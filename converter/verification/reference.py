"""`reference.npz`: a few inputs of a bundle's network and what the source model gave for them.

Keys are `input_K` (`input_K::<name>` when the network has several inputs), `out_K::<name>`, and in
a quantized bundle `sim_K::<name>` for what the Q/DQ simulation gave; K from 0.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.content import DAMAGED_ARRAY
from qconvert.errors import ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qconvert.quant import F32

__all__ = ["FILE", "LIMIT", "Case", "load", "save"]

FILE: Final = "reference.npz"
LIMIT: Final = 8
"""How many cases a bundle holds at most."""

_DAMAGED: Final = (*DAMAGED_ARRAY, LookupError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_KEY: Final = re.compile(r"(input|out|sim)_([0-9]{1,6})(?:::(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Case:
    """One input of a network and its outputs, by name, batch axis included.

    Attributes:
        inputs: What was fed.
        outputs: What the source model gave.
        simulated: What the quantized simulation gave; empty in a float bundle.
    """

    inputs: Mapping[str, F32]
    outputs: Mapping[str, F32]
    simulated: Mapping[str, F32] = field(default_factory=dict)


def save(path: Path, cases: Sequence[Case]) -> None:
    """Write at most `LIMIT` cases; the same cases give the same bytes."""
    arrays: dict[str, F32] = {}
    for index, case in enumerate(cases[:LIMIT]):
        for name, array in case.inputs.items():
            key = f"input_{index}" if len(case.inputs) == 1 else f"input_{index}::{name}"
            arrays[key] = array
        for name, array in case.outputs.items():
            arrays[f"out_{index}::{name}"] = array
        for name, array in case.simulated.items():
            arrays[f"sim_{index}::{name}"] = array
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        for key, array in arrays.items():
            # A member opened by ZipInfo carries no clock.
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def load(path: Path, inputs: Sequence[str]) -> list[Case]:
    """Read every case of a file.

    Args:
        path: The file.
        inputs: Names of the network's inputs: `input_K` alone is the first of them.

    Raises:
        ModelFormatError: If the file is missing or damaged, or a case is incomplete.
    """
    found: dict[int, dict[str, dict[str, F32]]] = {}
    try:
        # numpy would leave a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for key in archive.files:
                kind, index, name = _parse(key)
                case = found.setdefault(index, {"input": {}, "out": {}, "sim": {}})
                array = np.asarray(archive[key], dtype=np.float32)
                case[kind][name or inputs[0]] = array
    except _DAMAGED as error:
        raise ModelFormatError(
            "the reference outputs cannot be read",
            at=str(path),
            why=str(error) or "it is damaged",
            fix="convert the model again",
        ) from error
    for index, case in found.items():
        if set(case["input"]) != set(inputs) or not case["out"]:
            raise ModelFormatError(
                "the reference outputs are not of this network",
                at=f"{path}, case {index}",
                why=f"it holds inputs {sorted(case['input'])}, the network has {sorted(inputs)}",
                fix="convert the model again",
            )
    return [Case(*found[index].values()) for index in sorted(found)]


def _parse(key: str) -> tuple[str, int, str | None]:
    """Kind, index and name of a key."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"'{key}' is not a key of {FILE}")
    return match[1], int(match[2]), match[3]

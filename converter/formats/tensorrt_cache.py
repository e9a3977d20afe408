"""TensorRT's calibration cache: a header and one float32 scale per tensor, in hex.

    TRT-8601-EntropyCalibration2
    data: 3c010204
    conv1: 3c8954be

The hex digits are the big-endian bits of `amax / 127`. TensorRT prints them without leading
zeros; other readers want eight digits, so eight are written. Readers split lines at `: ` and know
no escapes, which is why a name must hold neither that nor a line break.

Reference: NVIDIA/TensorRT samples/sampleINT8/README.md (7.0), samples/common/sampleEngines.cpp
(8.6.1, `readScalesFromCalibrationCache`).
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from qconvert.errors import ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Cache", "looks_like", "parse"]

_HEADER: Final = re.compile(r"TRT-(?P<version>\d{1,9})-(?P<algorithm>\w+)")
_HEX: Final = re.compile(r"[0-9a-fA-F]{1,8}")


@dataclass(frozen=True, slots=True)
class Cache:
    """A whole cache.

    Attributes:
        version: TensorRT's version number, e.g. 8601 or 100300.
        scales: Tensor name → scale (ONNX convention), finite, > 0.
        algorithm: The calibrator it claims to come from.
    """

    version: int
    scales: Mapping[str, float]
    algorithm: str = "EntropyCalibration2"

    def __post_init__(self) -> None:
        for name, scale in self.scales.items():
            if not (math.isfinite(scale) and scale > 0):
                raise ValueError(f"the scale of '{name}' is {scale}")
            if not _can_stand(name):
                raise ValueError(f"'{name}' cannot stand in a calibration cache")

    @override
    def __str__(self) -> str:
        rows = [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in self.scales.items()]
        return "\n".join([f"TRT-{self.version}-{self.algorithm}", *rows, ""])


def _can_stand(name: str) -> bool:
    """Whether a reader of a cache finds this name again."""
    return ": " not in name and name == name.strip() and len(name.splitlines()) == 1


def looks_like(text: str) -> bool:
    """Whether `text` begins like a calibration cache."""
    return _HEADER.match(text) is not None


def parse(text: str, *, origin: str) -> Cache:
    """Read a cache.

    Args:
        text: The whole file.
        origin: Its name, for errors.

    Returns:
        The cache; tensors with scale 0 (never seen by TensorRT) are left out.

    Raises:
        ModelFormatError: If the header or a line is something else, or a scale is not finite.
    """
    head, *lines = text.splitlines() or [""]
    header = _HEADER.fullmatch(head.strip())
    if header is None:
        raise ModelFormatError(
            "this is no TensorRT calibration cache",
            at=f"{origin}:1",
            why=f"it begins with {head[:40]!r}, not TRT-<version>-<algorithm>",
        )
    scales = {}
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        name, colon, digits = line.rpartition(":")
        if not colon or not _can_stand(name) or not _HEX.fullmatch(digits.strip()):
            raise ModelFormatError(
                f"not a cache entry: {line[:80]!r}",
                at=f"{origin}:{number}",
                why="a line is a tensor name, a colon, and up to eight hex digits",
            )
        scale = struct.unpack(">f", bytes.fromhex(digits.strip().rjust(8, "0")))[0]
        if not math.isfinite(scale) or scale < 0:
            raise ModelFormatError(
                f"the scale of '{name}' is {scale}", at=f"{origin}:{number}", why="it must be > 0"
            )
        if scale > 0:
            scales[name] = scale
    return Cache(int(header["version"]), scales, header["algorithm"])

"""TensorRT's versions: what each reads, and the number a calibration cache must carry.

| TensorRT | reads | header | opset |
| --- | --- | --- | --- |
| 5 to 7 | a cache | 1000 major + 100 minor + patch | 7 to 11 |
| 8, 9 | a cache, or Q/DQ | the same | 13 to 19 |
| 10 | a cache (deprecated from 10.1 on), or Q/DQ | 10000 major + 100 minor + patch | 20 |
| 11 | Q/DQ | none | 20 and newer |

A cache whose header names another version is thrown away by the builder, which then calibrates
anew: the reason that the version has no default.

Reference: NVIDIA/TensorRT include/NvInferRuntimeBase.h `NV_TENSORRT_VERSION` (8.6, 10.2);
onnx/onnx-tensorrt docs/operators.md of each release.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from qconvert.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OPTION", "Version", "wanted"]

OPTION: Final = "trt_version"
_FORM: Final = re.compile(r"(\d{1,2})\.(\d{1,2})(?:\.(\d{1,2}))?(?:\.\d+)?")
_OLDEST, _NEWEST = 5, 11
_OPSETS: Final = (
    ((5, 0), 7),
    ((5, 1), 9),
    ((6, 0), 10),
    ((7, 0), 11),
    ((8, 0), 13),
    ((8, 4), 17),
    ((9, 0), 19),
    ((10, 0), 20),
)
"""From a version on: the newest opset its ONNX parser reads. 20 serves later ones too."""


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """One release of TensorRT.

    Attributes:
        major: 5 to 11.
        minor: 0 and up.
        patch: 0 and up.
    """

    major: int
    minor: int
    patch: int = 0

    @override
    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def number(self) -> int:
        """As it stands in the header of a calibration cache."""
        thousands = 1000 if self.major < 10 else 10000
        return thousands * self.major + 100 * self.minor + self.patch

    @property
    def reads_cache(self) -> bool:
        """Whether the builder knows calibrators."""
        return self.major < 11

    @property
    def reads_qdq(self) -> bool:
        """Whether the ONNX parser takes Q/DQ nodes as they are meant."""
        return self.major >= 8

    @property
    def opset(self) -> int:
        """The opset of models written for this version."""
        return max(opset for since, opset in _OPSETS if (self.major, self.minor) >= since)


def parse(text: str) -> Version:
    """Read a version.

    Args:
        text: `8.6.1`, `8.6`, or with a build number, `10.3.0.26`.

    Raises:
        UsageError: If it is none, or none that this release knows.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"--trt-version {text!r} is not a version of TensorRT",
            why="a version is major.minor.patch",
            fix="write it as `dpkg -l | grep nvinfer` shows it, e.g. --trt-version 8.6.1",
        )
    version = Version(int(match[1]), int(match[2]), int(match[3] or 0))
    if not _OLDEST <= version.major <= _NEWEST or (version.major < 10 and version.minor > 9):
        raise UsageError(
            f"--trt-version {text} is not a version that qconvert knows",
            why=f"it writes for TensorRT {_OLDEST} to {_NEWEST}",
            fix="give the version on the machine that builds the engine, e.g. 8.6.1 or 10.3.0",
        )
    return version


def wanted(options: Mapping[str, Any]) -> Version:
    """The version among the options of a target.

    Raises:
        UsageError: If it is missing or unknown.
    """
    text = options.get(OPTION)
    if not text:
        raise UsageError(
            "--trt-version is missing",
            why="each version of TensorRT reads other files, and drops a calibration cache that "
            "names another version",
            fix="add the version on the machine that builds the engine, e.g. --trt-version 8.6.1",
        )
    return parse(str(text))

"""The options of the TensorRT target: which version, and what is written besides the usual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qconvert.backends.tensorrt.version import Version, wanted
from qconvert.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DIALECTS", "Options", "check", "read"]

DIALECTS: Final = ("ppq", "mqbench", "nvdla")
"""Range files of other tools that can be written on request."""
_OURS: Final = ("cache", "qdq")


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asks of this target.

    Attributes:
        version: The version of TensorRT that will build the engine.
        dialects: Range files to write besides `ranges.json`.
    """

    version: Version
    dialects: tuple[str, ...] = ()


def read(options: Mapping[str, Any]) -> Options:
    """Read the options.

    Raises:
        UsageError: If the version is missing or unknown, or something is asked for that it does
            not read.
    """
    version = wanted(options)
    emit = options.get("emit") or ()
    emit = emit.split(",") if isinstance(emit, str) else emit  # a configuration may say it so
    emit = tuple(dict.fromkeys(str(name).strip() for name in emit))
    for name in emit:
        _check_emit(name, version)
    return Options(version, tuple(name for name in DIALECTS if name in emit))


def check(options: Mapping[str, Any]) -> None:
    """Refuse options that do not fit, before long work begins; see `read`."""
    read(options)


def _check_emit(name: str, version: Version) -> None:
    """Refuse what is unknown, or nothing for this version."""
    known = (*_OURS, *DIALECTS)
    if name not in known:
        raise UsageError(
            f"--emit {name} is nothing that the target 'tensorrt' writes",
            why=f"it writes {', '.join(known)}",
            fix="choose among these",
        )
    if name == "cache" and not version.reads_cache:
        raise UsageError(
            f"TensorRT {version} reads no calibration cache",
            at="--emit cache",
            why="TensorRT 11 removed calibrators: networks are strongly typed, and their scales "
            "stand in Q/DQ nodes",
            fix="use model.qdq.onnx, or give the --trt-version (10.x or older) that builds from "
            "the cache",
        )
    if name == "qdq" and not version.reads_qdq:
        raise UsageError(
            f"TensorRT {version} does not read Q/DQ models",
            at="--emit qdq",
            why="its parser takes them from version 8.0 on",
            fix="use model.onnx with calibration.cache",
        )

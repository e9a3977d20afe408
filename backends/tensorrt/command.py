"""The `trtexec` command lines that build an engine from a bundle.

Reference: NVIDIA/TensorRT samples/common/sampleOptions.cpp of 7.0, 8.2, 8.6, 10.1, 11.0.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from qconvert.backends.tensorrt.precisions import FLOAT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qconvert.backends.tensorrt.version import Version

__all__ = ["commands"]


def commands(version: Version, floats: Sequence[str], *, quantized: bool) -> list[str]:
    """What to paste into a shell, inside the bundle; the first is the one to prefer.

    Args:
        version: The version of TensorRT on the machine.
        floats: Layers that stay in float.
        quantized: Whether the bundle is.
    """
    batch = ["--explicitBatch"] if version.major in {6, 7} else []
    if not quantized:
        return [_line(["--onnx=model.onnx", *batch, "--saveEngine=model.engine"])]
    lines = []
    if version.reads_qdq:
        lines.append(
            _line(["--onnx=model.qdq.onnx", *_typed(version), "--saveEngine=model.engine"])
        )
    if version.reads_cache:
        words = ["--onnx=model.onnx", *batch, "--int8", "--fp16", "--calib=calibration.cache"]
        # Names with these characters cannot stand in the list.
        listed = [name for name in floats if not set(name) & set(",:")]
        if (version.major, version.minor) >= (8, 4) and listed:
            entries = ",".join(f"{name}:{FLOAT}" for name in listed)
            words += ["--precisionConstraints=prefer", f"--layerPrecisions={entries}"]
        lines.append(_line([*words, "--saveEngine=model.engine"]))
    return lines


def _typed(version: Version) -> list[str]:
    """The flags that let TensorRT use integers where Q/DQ nodes say so."""
    if version.major >= 11:
        return []
    if (version.major, version.minor) >= (10, 12):
        return ["--stronglyTyped"]
    return ["--int8", "--fp16"]


def _line(words: Sequence[str]) -> str:
    return shlex.join(["trtexec", *words])

"""Range files of other tools: one number per activation, in a few dialects of JSON.

    PPQ (TensorRT JSON)        {"act_quant_info": {tensor: amax}}
    MQBench (*_clip_ranges)    {"tensorrt": {"blob_range": {tensor: amax}}}
    NVIDIA qdq-translator      {"int8_tensor_scales": {tensor: amax / 127}, ...}
    NVDLA                      {tensor: {"scale": amax / 127, ...}}
    qconvert (ranges.json)     {"format": "qconvert.ranges", "version": 1,
                                "tensors": {tensor: {"scale": amax / 127, ...}}, ...}

Reference: OpenPPL/ppq ppq/parser/tensorRT.py; ModelTC/MQBench mqbench/deploy/deploy_tensorrt.py;
NVIDIA/Deep-Learning-Accelerator-SW tools/qdq-translator; nvdla/sw umd/utils/calibdata.
"""

from __future__ import annotations

import math
from typing import Any, Final

from qconvert.errors import ModelFormatError

__all__ = ["FORMAT", "VERSION", "parse"]

FORMAT: Final = "qconvert.ranges"
VERSION: Final = 1


def parse(document: dict[str, Any], *, origin: str) -> dict[str, float]:
    """Read a range file of any of the dialects.

    Args:
        document: The JSON object.
        origin: The file's name, for errors.

    Returns:
        Tensor name → largest magnitude, finite, >= 0.

    Raises:
        ModelFormatError: If it is none of them, or a range is not a finite number >= 0.
    """
    if document.get("format") == FORMAT and document.get("version") != VERSION:
        raise ModelFormatError(
            f"the ranges have version {document.get('version')!r}",
            at=origin,
            why=f"this release reads version {VERSION}",
            fix="convert again, or use the release that wrote them",
        )
    ranges, factor = _found(document)
    if not isinstance(ranges, dict) or not ranges:
        raise ModelFormatError(
            "no encodings that qconvert knows",
            at=origin,
            why=f"its keys are {', '.join(map(repr, list(document)[:5])) or 'none'}",
            fix="known: qconvert's own, PPQ's and MQBench's TensorRT JSON, qdq-translator, NVDLA",
        )
    found = {}
    for name, value in ranges.items():
        number = _number(value)
        if number is None:
            raise ModelFormatError(
                f"the range of '{name}' is {str(value)[:60]}",
                at=origin,
                why="a range is one finite number, 0 or more",
            )
        found[name] = factor * number
    return found


def _number(value: Any) -> float | None:  # noqa: ANN401 - any JSON at all
    """The number of an entry; None when it is no range."""
    number = value.get("scale") if isinstance(value, dict) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return None
    return float(number) if 0 <= number < math.inf else None


def _found(document: dict[str, Any]) -> tuple[Any, float]:
    """The object with the ranges, and what turns its numbers into largest magnitudes."""
    if document.get("format") == FORMAT:
        return document.get("tensors"), 127.0
    if "act_quant_info" in document:
        return document["act_quant_info"], 1.0
    if isinstance(document.get("tensorrt"), dict):
        return document["tensorrt"].get("blob_range"), 1.0
    if "int8_tensor_scales" in document:
        return document["int8_tensor_scales"], 127.0
    if all(isinstance(value, dict) and "scale" in value for value in document.values()):
        return document, 127.0
    return None, 1.0

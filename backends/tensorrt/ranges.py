"""`ranges.json`: what every tensor's numbers span, and the same in dialects of other tools.

    {"format": "qconvert.ranges", "version": 1, "target": "tensorrt", "bits": 8,
     "tensors": {"data": {"scale": 0.0078, "amax": 1.0, "quantized": true}, ...},
     "float_layers": ["prob"]}

`amax` is 127 scales; `quantized` says whether the Q/DQ model has a pair at that tensor. A number is
the shortest decimal that gives the float32 back.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from qconvert.formats.range_json import FORMAT, VERSION

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["dialect", "ranges"]


def _short(number: float) -> float:
    """The shortest decimal of a float32."""
    return float(str(np.float32(number)))


def ranges(scales: Mapping[str, float], placed: Collection[str], floats: Sequence[str]) -> str:
    """The text of `ranges.json`.

    Args:
        scales: Tensor → scale.
        placed: Tensors that the Q/DQ model quantizes.
        floats: Layers that stay in float.
    """
    tensors = {
        name: {"scale": _short(scale), "amax": _short(127.0 * scale), "quantized": name in placed}
        for name, scale in scales.items()
    }
    head: dict[str, Any] = {"format": FORMAT, "version": VERSION, "target": "tensorrt", "bits": 8}
    return _text({**head, "tensors": tensors, "float_layers": list(floats)})


def dialect(name: str, scales: Mapping[str, float]) -> tuple[str, str]:
    """A range file of another tool.

    Args:
        name: `ppq`, `mqbench` or `nvdla`.
        scales: Tensor → scale.

    Returns:
        File name and text.
    """
    limits = {tensor: _short(127.0 * scale) for tensor, scale in scales.items()}
    if name == "ppq":
        return "ranges.ppq.json", _text({"act_quant_info": limits})
    if name == "mqbench":
        return "ranges.mqbench.json", _text({"tensorrt": {"blob_range": limits}})
    entries = {
        tensor: {"scale": _short(scale), "min": 0, "max": 0, "offset": 0}
        for tensor, scale in scales.items()
    }
    return "ranges.nvdla.json", _text(entries)


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

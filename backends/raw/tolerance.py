"""By how many codes a layer may differ from its simulation, given what the user chose.

Where both round the same number they may differ by one: next to the middle of two codes a float32
sum is rounded to the other side. Narrow multipliers and biases change the number itself, by e codes
at most, and then the codes by floor(e) + 1. That shows in outputs of 16 bits only.
"""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.bundle import Manifest

__all__ = ["largest_step"]


def largest_step(manifest: Manifest) -> int:
    """The bound for all layers of a bundle."""
    numeric, tensors = manifest.extra["numeric"], manifest.extra["tensors"]
    bits = 62 if numeric["requantization"] == "power_of_two" else numeric["multiplier_bits"]
    rows = (row.extra for row in manifest.layers)
    shares = [_share(row, tensors, bits) for row in rows if "multiplier" in row["parameters"]]
    return floor(max(shares, default=0.0)) + 1


def _share(row: Mapping[str, Any], tensors: Mapping[str, Any], bits: int) -> float:
    """How far multipliers and bias of one layer may take its output, in codes."""
    output = tensors[row["outputs"][0]]
    # The last bit of a multiplier is off by half; several terms may be larger than their sum.
    multiplier = 2.0 ** int(output["bits"] - bits) * len(row["inputs"])
    shift = int(row["attributes"].get("bias_shift", 0))
    if not shift:
        return multiplier
    unit = float(max(tensors[row["parameters"]["bias"]]["quant"]["scale"]))
    return multiplier + 2.0 ** (shift - 1) * unit / float(output["quant"]["scale"][0])

"""How many codes a layer may differ from its simulation follows from what the user chose."""

from __future__ import annotations

from typing import Any

import pytest

from qconvert.backends.raw.tolerance import largest_step
from qconvert.bundle import LayerRow, Manifest


def manifest(numeric: dict[str, Any], output_bits: int, bias_shift: int) -> Manifest:
    tensors = {
        "y": {"bits": output_bits, "quant": {"scale": [0.5]}},
        "b": {"bits": 16, "quant": {"scale": [0.1, 0.2]}},
    }
    extra = {
        "outputs": ["y"],
        "inputs": ["x"],
        "parameters": {"bias": "b", "multiplier": "m"},
        "attributes": {"bias_shift": bias_shift},
    }
    copy = {**extra, "parameters": {}}
    rows = [LayerRow("conv", "conv", 8, extra=extra), LayerRow("pool", "max_pool", 8, extra=copy)]
    return Manifest("raw", "0", {}, [], [], rows, extra={"numeric": numeric, "tensors": tensors})


FIXED = {"requantization": "fixed_point"}


@pytest.mark.parametrize(
    ("numeric", "output_bits", "bias_shift", "codes"),
    [
        ({**FIXED, "multiplier_bits": 31}, 16, 0, 1),
        ({**FIXED, "multiplier_bits": 15}, 8, 0, 1),
        ({**FIXED, "multiplier_bits": 16}, 16, 0, 2),
        ({**FIXED, "multiplier_bits": 31}, 8, 4, 4),  # 8 units of 0.2, each 0.4 codes
        ({"requantization": "power_of_two", "multiplier_bits": 15}, 16, 0, 1),
    ],
)
def test_narrow_multipliers_and_biases_widen_the_bound(
    numeric: dict[str, Any], output_bits: int, bias_shift: int, codes: int
) -> None:
    assert largest_step(manifest(numeric, output_bits, bias_shift)) == codes


def test_a_network_without_sums_may_differ_by_one() -> None:
    nothing = {"numeric": {**FIXED, "multiplier_bits": 31}, "tensors": {}}

    assert largest_step(Manifest("raw", "0", {}, [], [], extra=nothing)) == 1

"""The policy of `qconvert calibrate` when no target is named: everything anyone could ask for."""

from __future__ import annotations

from typing import Final

from qconvert.plan import OpRule, Policy
from qconvert.quant import LOG2_BITS

__all__ = ["ANY"]

ANY: Final = Policy(
    target="any",
    rules={
        kind: OpRule(kind, role="compute", weights="channel")
        for kind in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    },
    weight_bits=frozenset(range(2, 17)),
    activation_bits=frozenset({2, 3, 4, 5, 6, 7, 8, 16}),
    asymmetric=True,
    integer_graph=True,
    quantize_outputs=True,
    every_value=True,
    log2_bits=LOG2_BITS,
)
"""One calibration for every target: each layer per channel, a scale for every value.

No scales are tied: what shares one scale differs between targets, and follows when the encodings
are fitted to a target's plan.
"""

"""What ncnn runs as integers: facts, no code paths."""

from __future__ import annotations

from typing import Final

from qconvert.plan import Fusion, OpRule, Policy

__all__ = ["POLICY"]

POLICY: Final = Policy(
    target="ncnn",
    rules={
        rule.op_type: rule
        for rule in (
            OpRule(
                "Conv",
                "compute",
                "group",
                "Convolution (a scale per channel), ConvolutionDepthWise (a scale per group)",
                ranks=frozenset({4}),
            ),
            OpRule("Gemm", "compute", "channel", "InnerProduct"),
            *(
                OpRule(
                    kind,
                    "weights",
                    "channel",
                    "weights; the scale of its input is found at every step",
                )
                for kind in ("LSTM", "GRU", "RNN")
            ),
            OpRule("Gather", "weights", "tensor", "Embed: rows of a table, by an input"),
            OpRule("MatMul", "compute", "channel", "InnerProduct, when the right side is constant"),
        )
    },
    weight_bits=frozenset(range(2, 9)),
    activation_bits=frozenset(range(2, 9)),
    rounds_away=True,
    fused=(
        Fusion(
            ("Conv", "ConvTranspose", "Gemm", "MatMul"),
            ("Relu", "LeakyRelu", "Clip", "Sigmoid", "Mish", "HardSwish"),
        ),
    ),
)

"""What an integer program computes on codes; every other operator is a float boundary."""

from __future__ import annotations

from typing import Final

from qconvert.plan import OpRule, Policy
from qconvert.quant import LOG2_BITS

__all__ = ["POLICY"]

_IMAGES: Final = frozenset({4})
_TABLES: Final = (
    "Celu", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Selu",
    "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
)  # fmt: skip
_COPIES: Final = (
    "Clip", "Flatten", "Gather", "Identity", "Relu", "Reshape", "Slice", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
)  # fmt: skip

POLICY: Final = Policy(
    target="raw",
    rules={
        rule.op_type: rule
        for rule in (
            OpRule("Conv", "compute", "channel", "conv, depthwise", ranks=_IMAGES),
            OpRule("Gemm", "compute", "channel", "fc", ranks=frozenset({2})),
            OpRule("Add", "compute", note="add: each side with its multiplier"),
            OpRule("Sub", "compute", note="add, one side negative"),
            OpRule("Mul", "compute", note="mul"),
            OpRule("AveragePool", "compute", note="avg_pool", ranks=_IMAGES),
            OpRule("GlobalAveragePool", "compute", note="avg_pool", ranks=_IMAGES),
            OpRule("ReduceMean", "compute", note="avg_pool over a whole map", ranks=_IMAGES),
            *(OpRule(op, "compute", note="lut: a table of every code") for op in _TABLES),
            OpRule("Concat", "aligned", note="concat, on one scale"),
            OpRule("MaxPool", "inherits", note="max_pool", ranks=_IMAGES),
            OpRule("GlobalMaxPool", "inherits", note="max_pool over a whole map", ranks=_IMAGES),
            OpRule("Resize", "inherits", note="resize, nearest only", ranks=_IMAGES),
            OpRule("Pad", "inherits", note="pad, with a constant"),
            OpRule("DepthToSpace", "inherits", note="reshape and transpose", ranks=_IMAGES),
            OpRule("SpaceToDepth", "inherits", note="reshape and transpose", ranks=_IMAGES),
            *(OpRule(op, "inherits", note="codes are moved or bounded") for op in _COPIES),
        )
    },
    weight_bits=frozenset({2, 3, 4, 5, 6, 7, 8, 16}),
    activation_bits=frozenset({2, 3, 4, 5, 6, 7, 8, 16}),
    asymmetric=True,
    integer_graph=True,
    quantize_outputs=True,
    output_bits=16,
    bias_int32=True,
    log2_bits=LOG2_BITS,
)

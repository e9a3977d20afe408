"""What onnxruntime runs as integers."""

from __future__ import annotations

from typing import Final

from qconvert.plan import Fusion, OpRule, Policy
from qconvert.quant import LOG2_BITS

__all__ = ["POLICY"]

_COMPUTE: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ALIGNED: Final = ("Add", "Mul", "Concat")
_INHERITS: Final = (
    "Clip",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Relu",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)

POLICY: Final = Policy(
    target="onnx",
    rules={
        **{
            op: OpRule(op, "compute", "channel", "QDQ becomes QLinearConv, QGemm or QLinearMatMul")
            for op in _COMPUTE
        },
        **{op: OpRule(op, "aligned", note="both sides in integers") for op in _ALIGNED},
        **{op: OpRule(op, "inherits", note="codes pass through") for op in _INHERITS},
    },
    weight_bits=frozenset({2, 3, 4, 5, 6, 7, 8, 16}),
    activation_bits=frozenset({2, 3, 4, 5, 6, 7, 8, 16}),
    asymmetric=True,
    # Inputs of compute operators alone: nodes between them fuse in float, and a Q/DQ pair that
    # no integer kernel uses would only cost accuracy.
    integer_graph=False,
    quantize_outputs=False,
    bias_int32=True,
    free_placement=True,
    log2_bits=LOG2_BITS,
    # Between Q/DQ nodes onnxruntime fuses what only bounds codes; the file keeps every node.
    fused=(Fusion(("Conv", "Gemm", "MatMul"), ("Relu", "Clip"), add=True),),
)

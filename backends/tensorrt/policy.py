"""What TensorRT runs as integers.

`Pooling` and element-wise operators follow their neighbours (see `placement`); everything else
stays float although a calibration cache has a scale for it.
"""

from __future__ import annotations

from typing import Final

from qconvert.backends.tensorrt.placement import Arrangement
from qconvert.plan import Fusion, OpRule, Policy

__all__ = ["POLICY"]

_LAYERS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_NEIGHBOURS: Final = {
    "Add": "inputs, where they come from int8; the one that a Conv adds to stays float",
    "AveragePool": "input, where it comes from int8",
    "GlobalAveragePool": "input, where it comes from int8",
    "Mul": "inputs, where both come from int8",
}
_MOVES: Final = (
    "DepthToSpace",
    "Flatten",
    "MaxPool",
    "Reshape",
    "SpaceToDepth",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)

POLICY: Final = Policy(
    target="tensorrt",
    rules={
        **{op: OpRule(op, "compute", "channel", "input and weight") for op in _LAYERS},
        **{op: OpRule(op, "compute", note=note) for op, note in _NEIGHBOURS.items()},
        "Concat": OpRule("Concat", "aligned", note="one scale for all inputs and the output"),
        **{op: OpRule(op, "inherits", note="no pair of its own") for op in _MOVES},
    },
    weight_bits=frozenset({8}),
    activation_bits=frozenset({8}),
    integer_graph=True,
    quantize_outputs=True,
    every_value=True,
    fused=(Fusion(_LAYERS, ("Relu", "Clip", "LeakyRelu"), add=True),),
    placement=Arrangement(),
)

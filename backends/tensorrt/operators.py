"""Which operators TensorRT's ONNX parser reads, and since when.

Reference: onnx/onnx-tensorrt docs/operators.md, branches 5.1 to 10.1; a row says `Y` there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qconvert.errors import Problem
from qconvert.graph import describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    from qconvert.backends.tensorrt.version import Version

__all__ = ["known", "operators", "problems", "since"]

_SINCE: Final[Mapping[tuple[int, int], str]] = {
    (5, 0): """Abs Acos Acosh Add ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
        Cast Ceil Clip Concat Constant Conv ConvTranspose Cos Cosh DepthToSpace Div Dropout Elu Exp
        Flatten Floor Gather Gemm GlobalAveragePool GlobalMaxPool HardSigmoid Identity
        InstanceNormalization LRN LeakyRelu Log LogSoftmax MatMul Max MaxPool Mean Min Mul Neg PRelu
        Pad Pow Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
        ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Selu Shape Sigmoid Sin Sinh
        Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh TopK
        Transpose Unsqueeze Upsample""",
    (6, 0): "Resize ThresholdedRelu",
    (7, 0): """And ConstantOfShape DequantizeLinear Equal Erf Expand GRU Greater LSTM Less Loop Not
        Or QuantizeLinear RNN RandomUniform RandomUniformLike Range Scan Size Tile Where""",
    (7, 2): """Celu CumSum EyeLike GatherElements GlobalLpPool GreaterOrEqual LessOrEqual
        LpNormalization LpPool ReverseSequence""",
    (8, 0): "If",
    (8, 2): "Einsum GatherND IsNaN Round Scatter ScatterElements ScatterND Sign",
    (8, 4): "HardSwish RandomNormal RandomNormalLike Shrink Xor",
    (8, 5): """GridSample MeanVarianceNormalization Mod NonMaxSuppression NonZero OneHot RoiAlign
        Trilu""",
    (8, 6): "GroupNormalization IsInf LayerNormalization",
    (9, 1): "CastLike",
    (9, 3): "Hardmax",
    (10, 0): "Gelu Mish",
    (10, 1): "DeformConv",
}
_FIRST: Final = {name: first for first, names in _SINCE.items() for name in names.split()}


def operators() -> dict[str, str]:
    """ONNX operator → the version of TensorRT that reads it first."""
    return {name: f"{first[0]}.{first[1]}" for name, first in _FIRST.items()}


def since(operator: str) -> tuple[int, int] | None:
    """The version that reads an operator first; None when none does."""
    return _FIRST.get(operator)


def known(operator: str, version: Version) -> bool:
    """Whether a version reads an operator."""
    first = _FIRST.get(operator)
    return first is not None and first <= (version.major, version.minor)


def problems(nodes: Iterable[ir.Node], version: Version | None = None) -> list[Problem]:
    """What TensorRT cannot express of `nodes`.

    Args:
        nodes: Functions expanded.
        version: The version they are for; None: the newest.
    """
    found = []
    for node in nodes:
        first = None if node.domain else _FIRST.get(node.op_type)
        if first is None:
            why = "TensorRT's ONNX parser does not know it"
        elif version is not None and first > (version.major, version.minor):
            why = f"TensorRT reads it from {first[0]}.{first[1]} on, not in {version}"
        else:
            continue
        kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        found.append(Problem(f"operator {kind}", describe(node), why))
    return found

"""Every layer type, alone: ncnn against onnxruntime on the network read back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.frontends.ncnn import operators
from tests.frontends.ncnn.oracle import (
    assert_same,
    random_inputs,
    raw,
    single,
    tagged,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.formats.ncnn_bin import Buffer
    from qconvert.formats.ncnn_param import Param

IMAGE = (4, 6, 5)
MATRIX = (6, 5)
VECTOR = (7,)
CUBE = (3, 4, 6, 5)


@dataclass(frozen=True)
class Case:
    """One layer: `T12` in `weights` is a tagged buffer of 12 values, `R4` a raw one."""

    id: str
    kind: str
    params: Mapping[int, Param] = field(default_factory=dict)
    inputs: tuple[tuple[int, ...], ...] = (IMAGE,)
    weights: tuple[str, ...] = ()
    outputs: int = 1
    positive: bool = False


def buffers(case: Case) -> list[Buffer]:
    rng = np.random.default_rng(1)
    made = []
    for word in case.weights:
        size = int(word[1:])
        values = rng.normal(size=size).astype(np.float32)
        values = np.abs(values) + np.float32(0.5) if word[0] == "P" else values
        made.append(tagged(values) if word[0] == "T" else raw(values))
    return made


def plain(
    kind: str, params: Mapping[int, Param] | None = None, *, name: str = "", positive: bool = False
) -> list[Case]:
    """A layer without weights over 1, 2, 3 and 4 dims."""
    return [
        Case(f"{name or kind}_{len(shape)}d", kind, params or {}, (shape,), positive=positive)
        for shape in (VECTOR, MATRIX, IMAGE, CUBE)
    ]


ACTIVATIONS = [
    *plain("ReLU"),
    *plain("ReLU", {0: 0.1}, name="LeakyReLU"),
    *plain("Clip", {0: -0.5, 1: 0.75}),
    Case("Clip_default", "Clip"),
    *plain("Sigmoid"),
    *plain("TanH"),
    *plain("Mish"),
    *plain("Swish"),
    *plain("SELU"),
    Case("SELU_params", "SELU", {0: 1.5, 1: 1.1}),
    *plain("Softplus"),
    *plain("AbsVal"),
    *plain("BNLL"),
    *plain("Erf"),
    *plain("ELU"),
    Case("ELU_alpha", "ELU", {0: 1.0}),
    *plain("CELU"),
    Case("CELU_alpha", "CELU", {0: 0.5}),
    *plain("GELU"),
    Case("GELU_fast", "GELU", {0: 1}),
    *plain("HardSigmoid"),
    Case("HardSigmoid_onnx", "HardSigmoid", {0: 0.16666667, 1: 0.5}),
    *plain("HardSwish"),
    Case("HardSwish_onnx", "HardSwish", {0: 1.66666672e-01, 1: 0.5}),
    Case("Exp_base", "Exp", {0: 2.0, 1: 0.5, 2: 0.25}),
    *plain("Exp"),
    *plain("Log", positive=True),
    Case("Log_base", "Log", {0: 10.0, 1: 2.0, 2: 0.5}, positive=True),
    *plain("Power", {0: 2.0, 1: 0.5, 2: 1.0}),
    Case("Power_affine", "Power", {1: -2.0, 2: 3.0}),
    *plain("Threshold", {0: 0.3}),
    *plain("Dropout"),
    Case("Dropout_scale", "Dropout", {0: 0.5}),
    Case("PReLU_shared", "PReLU", {0: 1}, weights=("R1",)),
    Case("PReLU_3d", "PReLU", {0: 4}, weights=("R4",)),
    Case("PReLU_2d", "PReLU", {0: 6}, (MATRIX,), ("R6",)),
    Case("PReLU_1d", "PReLU", {0: 7}, (VECTOR,), ("R7",)),
    *plain("Noop"),
    *plain("DeepCopy"),
    Case("Cast", "Cast", {0: 1, 1: 1}),
]

UNARY = [
    Case(f"UnaryOp_{op}", "UnaryOp", {0: op}, positive=op in {5, 6, 8, 15, 17, 27})
    for op in range(28)
    if op not in {12, 13, 25, 26}
]

BINARY = [
    *(
        Case(f"BinaryOp_scalar_{op}", "BinaryOp", {0: op, 1: 1, 2: 1.5}, positive=True)
        for op in range(10)
    ),
    *(
        Case(f"BinaryOp_{op}", "BinaryOp", {0: op}, (IMAGE, IMAGE), positive=True)
        for op in (*range(10), 12, 13, 14, 15, 16)
    ),
    Case("BinaryOp_channel_vector", "BinaryOp", {0: 2}, (IMAGE, (4,))),
    Case("BinaryOp_vector_first", "BinaryOp", {0: 1}, ((4,), IMAGE)),
    Case("BinaryOp_row_vector", "BinaryOp", {0: 0}, (IMAGE, (5,))),
    Case("BinaryOp_matrix_outer", "BinaryOp", {0: 0}, (IMAGE, (4, 6))),
    Case("BinaryOp_matrix_vector", "BinaryOp", {0: 0}, (MATRIX, (6,))),
    Case("BinaryOp_matrix_row", "BinaryOp", {0: 0}, (MATRIX, (5,))),
    Case("BinaryOp_one", "BinaryOp", {0: 0}, (IMAGE, (1,))),
    Case("BinaryOp_ones", "BinaryOp", {0: 3}, (IMAGE, (4, 1, 1)), positive=True),
    Case("BinaryOp_plane", "BinaryOp", {0: 2}, (IMAGE, (1, 6, 5))),
    Case("BinaryOp_cube_image", "BinaryOp", {0: 0}, (CUBE, (3, 4, 6))),
    Case("BinaryOp_cube_vector", "BinaryOp", {0: 0}, (CUBE, (3,))),
    Case("Eltwise_prod", "Eltwise", {}, (IMAGE, IMAGE)),
    Case("Eltwise_sum_3", "Eltwise", {0: 1}, (IMAGE, IMAGE, IMAGE)),
    Case("Eltwise_coefficients", "Eltwise", {0: 1, 1: (1.0, -0.5)}, (IMAGE, IMAGE)),
    Case("Eltwise_max", "Eltwise", {0: 2}, (IMAGE, IMAGE, IMAGE)),
]

NORMS = [
    Case("BatchNorm", "BatchNorm", {0: 4, 1: 1e-3}, weights=("R4", "R4", "P4", "R4")),
    Case("BatchNorm_1d", "BatchNorm", {0: 7}, (VECTOR,), ("R7", "R7", "P7", "R7")),
    Case("BatchNorm_2d", "BatchNorm", {0: 6}, (MATRIX,), ("R6", "R6", "P6", "R6")),
    Case("BatchNorm_4d", "BatchNorm", {0: 3}, (CUBE,), ("R3", "R3", "P3", "R3")),
    Case("Scale", "Scale", {0: 4, 1: 1}, weights=("R4", "R4")),
    Case("Scale_2d", "Scale", {0: 6}, (MATRIX,), ("R6",)),
    Case("Scale_1d", "Scale", {0: 7, 1: 1}, (VECTOR,), ("R7", "R7")),
    Case("Scale_input", "Scale", {0: -233}, (IMAGE, (4,))),
    Case("Bias", "Bias", {0: 4}, weights=("R4",)),
    Case("Softmax", "Softmax", {0: 0}),
    Case("Softmax_1", "Softmax", {0: 1, 1: 1}),
    Case("Softmax_2", "Softmax", {0: 2, 1: 1}),
    Case("Softmax_negative", "Softmax", {0: -1, 1: 1}, (MATRIX,)),
    Case("Softmax_1d", "Softmax", {}, (VECTOR,)),
    *(
        Case(
            f"Normalize_{s}{c}{mode}",
            "Normalize",
            {0: s, 4: c, 1: 0, 2: 1e-2, 3: 4, 9: mode},
            weights=("R4",),
        )
        for s, c in ((0, 1), (1, 0), (1, 1))
        for mode in (0, 1, 2)
    ),
    Case("Normalize_shared", "Normalize", {1: 1, 3: 1}, weights=("R1",)),
    *(Case(f"LRN_{size}", "LRN", {1: size, 2: 0.5, 3: 0.75}) for size in (1, 3, 5)),
    *(Case(f"LRN_within_{size}", "LRN", {0: 1, 1: size, 2: 0.5, 4: 2.0}) for size in (1, 3, 4)),
    *(
        Case(f"MVN_{variance}{across}", "MVN", {0: variance, 1: across})
        for variance in (0, 1)
        for across in (0, 1)
    ),
    Case("InstanceNorm", "InstanceNorm", {0: 4, 1: 1e-5}, weights=("R4", "R4")),
    Case("InstanceNorm_plain", "InstanceNorm", {0: 4, 2: 0}),
    Case("GroupNorm", "GroupNorm", {0: 2, 1: 4, 2: 1e-5}, weights=("R4", "R4")),
    Case("GroupNorm_plain", "GroupNorm", {0: 2, 1: 4, 3: 0}),
    Case("GroupNorm_2d", "GroupNorm", {0: 3, 1: 6}, (MATRIX,), ("R6", "R6")),
    Case("GroupNorm_1d", "GroupNorm", {0: 2, 1: 8}, ((8,),), ("R8", "R8")),
    Case("GroupNorm_4d", "GroupNorm", {0: 1, 1: 3}, (CUBE,), ("R3", "R3")),
    Case("LayerNorm", "LayerNorm", {0: 5}, weights=("R5", "R5")),
    Case("LayerNorm_image", "LayerNorm", {0: 30, 1: 1e-5}, weights=("R30", "R30")),
    Case("LayerNorm_plain", "LayerNorm", {0: 5, 2: 0}, (MATRIX,)),
    Case("LayerNorm_1d", "LayerNorm", {0: 7}, (VECTOR,), ("R7", "R7")),
    Case("RMSNorm", "RMSNorm", {0: 5}, weights=("R5",)),
    Case("RMSNorm_image", "RMSNorm", {0: 30}, weights=("R30",)),
    Case("RMSNorm_plain", "RMSNorm", {0: 5, 2: 0}, (MATRIX,)),
]

SHAPES = [
    Case("Reshape_flat", "Reshape", {0: -1}),
    Case("Reshape_matrix", "Reshape", {0: -1, 1: 4}),
    Case("Reshape_copy", "Reshape", {0: 0, 1: -1}),
    Case("Reshape_image", "Reshape", {0: 3, 1: 10, 2: -1}),
    Case("Reshape_4d", "Reshape", {0: 5, 1: 3, 11: 2, 2: 0}),
    Case("Reshape_drop_d", "Reshape", {0: 5, 1: -1, 2: 3}, (CUBE,)),
    Case("Reshape_expression", "Reshape", {6: "*(0w,0h),0c"}),
    Case("Reshape_other", "Reshape", {6: "1w,-1"}, (IMAGE, (8,))),
    Case("Flatten", "Flatten"),
    Case("Flatten_4d", "Flatten", {}, (CUBE,)),
    *(Case(f"Permute_{order}", "Permute", {0: order}) for order in range(6)),
    *(Case(f"Permute_4d_{order}", "Permute", {0: order}, (CUBE,)) for order in range(24)),
    *(Case(f"Permute_2d_{order}", "Permute", {0: order}, (MATRIX,)) for order in range(2)),
    Case("Squeeze_axes", "Squeeze", {3: (0, 2)}, ((1, 6, 1),)),
    Case("Squeeze_named", "Squeeze", {0: 1, 1: 1}, ((4, 1, 1),)),
    Case("Squeeze_all", "Squeeze", {3: (0, 1)}, ((1, 1),)),
    Case("Squeeze_kept", "Squeeze", {3: (1,)}, (IMAGE,)),
    *(Case(f"ExpandDims_{axis}", "ExpandDims", {3: (axis,)}, (MATRIX,)) for axis in (0, 1, 2, -1)),
    Case("ExpandDims_two", "ExpandDims", {3: (0, 2)}, (VECTOR,)),
    Case("ShuffleChannel", "ShuffleChannel", {0: 2}, ((6, 3, 2),)),
    Case("ShuffleChannel_reverse", "ShuffleChannel", {0: 2, 1: 1}, ((6, 3, 2),)),
    Case("PixelShuffle", "PixelShuffle", {0: 2}, ((8, 3, 2),)),
    Case("PixelShuffle_dcr", "PixelShuffle", {0: 2, 1: 1}, ((8, 3, 2),)),
    Case("Reorg", "Reorg", {0: 2}),
    Case("Reorg_even", "Reorg", {0: 3}, ((3, 6, 9),)),
    Case("Reorg_mode1", "Reorg", {0: 2, 1: 1}, ((3, 4, 6),)),
    *(Case(f"Concat_{axis}", "Concat", {0: axis}, (IMAGE, IMAGE)) for axis in (0, 1, 2, -1)),
    Case("Concat_2d", "Concat", {0: 1}, (MATRIX, (6, 3))),
    Case("Concat_1d", "Concat", {}, (VECTOR, (3,), (2,))),
    Case("Concat_4d", "Concat", {0: 1}, (CUBE, CUBE)),
    Case("Slice", "Slice", {0: (1, -233), 1: 0}, outputs=2),
    Case("Slice_shares", "Slice", {0: (-233, -233, -233), 1: 1}, outputs=3),
    Case("Slice_points", "Slice", {2: (1, 3), 1: 2}, outputs=3),
    Case("Slice_negative", "Slice", {2: (-2,), 1: -1}, outputs=2),
    Case("Slice_part", "Slice", {0: (1, 2), 1: 1}, outputs=2),
    Case("Crop_offsets", "Crop", {0: 1, 1: 2, 2: 1, 3: 3, 4: -233, 5: 2}),
    Case("Crop_ends", "Crop", {0: 1, 3: -233, 4: -233, 5: -233, 6: 1, 7: 2}),
    Case("Crop_numpy", "Crop", {9: (1, -3), 10: (3, -233), 11: (0, 1)}),
    Case("Crop_numpy_all", "Crop", {9: (0, 1, 2), 10: (2, -1, 4)}),
    Case("Crop_reference", "Crop", {0: 1, 1: 2}, (IMAGE, (2, 3, 3))),
    Case("Crop_expression", "Crop", {19: "1", 20: "//(0h,2)", 21: "1"}),
    Case("Padding", "Padding", {0: 1, 1: 2, 2: 3, 3: 0, 5: 0.5}),
    Case("Padding_edge", "Padding", {0: 1, 1: 2, 2: 3, 3: 1, 4: 1}),
    Case("Padding_reflect", "Padding", {0: 1, 1: 2, 2: 3, 3: 1, 4: 2}),
    Case("Padding_channels", "Padding", {0: 1, 7: 1, 8: 2, 5: -1.0}),
    Case("Padding_per_channel", "Padding", {0: 1, 3: 2, 6: 4}, weights=("R4",)),
    Case("Padding_2d", "Padding", {0: 1, 3: 2, 5: 1.5}, (MATRIX,)),
    Case("Padding_1d", "Padding", {2: 1, 3: 2, 5: 1.5}, (VECTOR,)),
    Case("Padding_4d", "Padding", {0: 1, 3: 2, 7: 1, 8: 1, 5: 1.5}, (CUBE,)),
    Case("Tile", "Tile", {0: 1, 1: 3}),
    Case("Tile_repeats", "Tile", {2: (2, 1, 3)}),
    Case("Tile_more_dims", "Tile", {2: (2, 1, 3)}, (VECTOR,)),
]

DENSE = [
    Case("InnerProduct", "InnerProduct", {0: 3, 1: 1, 2: 360}, weights=("T360", "R3")),
    Case("InnerProduct_1d", "InnerProduct", {0: 3, 2: 21}, (VECTOR,), ("T21",)),
    Case("InnerProduct_rows", "InnerProduct", {0: 3, 1: 1, 2: 15, 9: 1}, (MATRIX,), ("T15", "R3")),
    Case("InnerProduct_4d", "InnerProduct", {0: 2, 2: 720}, (CUBE,), ("T720",)),
    Case("MatMul", "MatMul", {}, ((3, 4), (4, 5))),
    Case("MatMul_transposed", "MatMul", {0: 1}, ((3, 4), (5, 4))),
    Case("MatMul_vectors", "MatMul", {}, ((4,), (4,))),
    Case("MatMul_vector_matrix", "MatMul", {}, ((4,), (4, 5))),
    Case("MatMul_matrix_vector", "MatMul", {}, ((3, 4), (4,))),
    Case("MatMul_batched", "MatMul", {}, ((2, 3, 4), (2, 4, 5))),
    Case("MatMul_batch_one", "MatMul", {0: 1}, ((2, 3, 4), (5, 4))),
    Case("MatMul_batch_vector", "MatMul", {}, ((2, 3, 4), (4,))),
    Case("MatMul_vector_batch", "MatMul", {}, ((4,), (2, 4, 5))),
    Case("MatMul_4d", "MatMul", {}, ((2, 3, 4, 5), (2, 3, 5, 6))),
    Case("Gemm", "Gemm", {3: 1, 5: 1, 6: 1, 8: 3, 9: 5, 10: 4}, (MATRIX,), ("T15", "T3")),
    Case("Gemm_plain_b", "Gemm", {5: 1, 6: 1, 8: 3, 9: 5, 10: -1}, (MATRIX,), ("T15",)),
    Case("Gemm_constant_a", "Gemm", {4: 1, 6: 1, 7: 3, 9: 6, 10: -1}, (MATRIX,), ("T18",)),
    Case(
        "Gemm_alpha_beta",
        "Gemm",
        {0: 0.5, 1: 2.0, 3: 1, 5: 1, 6: 1, 8: 3, 9: 5, 10: 0},
        (MATRIX,),
        ("T15", "T1"),
    ),
    Case("Gemm_inputs", "Gemm", {}, ((3, 4), (4, 5))),
    Case("Gemm_inputs_c", "Gemm", {1: 0.5, 3: 1}, ((3, 4), (5, 4), (5,))),
    Case("Gemm_transposed_output", "Gemm", {14: 1}, ((3, 4), (4, 5))),
]

REDUCTIONS = [
    *(Case(f"Reduction_{op}", "Reduction", {0: op}, positive=True) for op in range(11)),
    *(
        Case(f"Reduction_{op}_axes", "Reduction", {0: op, 1: 0, 3: (1, 2), 5: 1}, positive=True)
        for op in range(11)
    ),
    *(
        Case(f"Reduction_axis_{axis}_{keep}", "Reduction", {0: 3, 1: 0, 3: (axis,), 4: keep, 5: 1})
        for axis in (0, 1, -1)
        for keep in (0, 1)
    ),
    Case("Reduction_coefficient", "Reduction", {0: 3, 2: 2.5, 4: 1}),
    Case("Reduction_2d", "Reduction", {0: 0, 1: 0, 3: (0,), 5: 1}, (MATRIX,)),
    Case("Reduction_4d", "Reduction", {0: 4, 1: 0, 3: (0, 3), 5: 1}, (CUBE,)),
    Case("Reduction_1d", "Reduction", {0: 0, 1: 0, 3: (0,), 5: 1}, (VECTOR,)),
]

SEQUENCES = [
    *(
        Case(
            f"LSTM_{way}",
            "LSTM",
            {0: 3, 1: 60 * n, 2: way},
            (MATRIX,),
            (f"T{60 * n}", f"T{12 * n}", f"T{36 * n}"),
        )
        for way, n in ((0, 1), (1, 1), (2, 2))
    ),
    *(
        Case(
            f"GRU_{way}",
            "GRU",
            {0: 3, 1: 45 * n, 2: way},
            (MATRIX,),
            (f"T{45 * n}", f"T{12 * n}", f"T{27 * n}"),
        )
        for way, n in ((0, 1), (1, 1), (2, 2))
    ),
    Case("RNN", "RNN", {0: 3, 1: 15}, (MATRIX,), ("T15", "T3", "T9")),
    Case("RNN_both", "RNN", {0: 3, 1: 30, 2: 2}, (MATRIX,), ("T30", "T6", "T18")),
    Case(
        "MultiHeadAttention",
        "MultiHeadAttention",
        {0: 4, 1: 2, 2: 16},
        ((3, 4),),
        ("T16", "R4") * 4,
    ),
    Case(
        "MultiHeadAttention_cross",
        "MultiHeadAttention",
        {0: 4, 1: 2, 2: 20, 3: 3, 4: 6, 5: 1},
        ((3, 5), (7, 3), (7, 6), (3, 7)),
        ("T20", "R4", "T12", "R4", "T24", "R4", "T20", "R5"),
    ),
]

CASES = [*ACTIVATIONS, *UNARY, *BINARY, *NORMS, *SHAPES, *DENSE, *REDUCTIONS, *SEQUENCES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_layer_read_back_does_what_ncnn_does(case: Case) -> None:
    network = single(case.kind, case.params, case.inputs, case.outputs)
    inputs = random_inputs(network)
    if case.positive:
        inputs = {name: np.abs(array) + np.float32(0.1) for name, array in inputs.items()}

    assert_same(network, buffers(case), inputs)


def test_every_layer_type_that_is_read_is_tested() -> None:
    elsewhere = {
        *("Convolution", "ConvolutionDepthWise", "Deconvolution", "DeconvolutionDepthWise"),
        *("Convolution1D", "ConvolutionDepthWise1D", "Convolution3D", "ConvolutionDepthWise3D"),
        *("Pooling", "Interp", "Input", "Split", "MemoryData", "Embed", "ArgMax"),
        *("PriorBox", "DetectionOutput"),
    }

    assert set(operators()) == {case.kind for case in CASES} | elsewhere

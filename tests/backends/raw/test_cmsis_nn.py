"""CMSIS-NN's own convolution runs the C export to the bit, where its sources are at hand.

Set QCONVERT_CMSIS_NN to a checkout of ARM-software/CMSIS-NN.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integer_programs import Linear, write_bundle

if TYPE_CHECKING:
    import numpy as np

HERE = Path(__file__).resolve().parent
SOURCES = Path(os.environ.get("QCONVERT_CMSIS_NN", "/nowhere"))
KERNELS = (
    "ConvolutionFunctions/arm_convolve_s8.c",
    "ConvolutionFunctions/arm_nn_mat_mult_kernel_s8_s16.c",
    "ConvolutionFunctions/arm_nn_mat_mult_kernel_row_offset_s8_s16.c",
    "ConvolutionFunctions/arm_convolve_get_buffer_sizes_s8.c",
    "NNSupportFunctions/arm_nn_mat_mult_nt_t_s8.c",
    "NNSupportFunctions/arm_nn_mat_mul_core_1x_s8.c",
    "NNSupportFunctions/arm_nn_mat_mul_core_4x_s8.c",
    "NNSupportFunctions/arm_s8_to_s16_unordered_with_offset.c",
    "NNSupportFunctions/arm_q7_to_q15_with_offset.c",
)
CASES = (
    Linear("plain"),
    Linear("zero_points", zero_points=(-5, 3)),
    Linear("odd_geometry", strides=(2, 3), dilations=(2, 1), zero_points=(7, 0), bits=7),
    Linear("multipliers_of_16", multiplier_bits=16, zero_points=(-128, -128)),
    Linear("shift_only", multiplier_bits=0, bits=4),
    Linear("two_roundings", rounding="tflite_double", zero_points=(-5, 3)),
)


@pytest.mark.skipif(not SOURCES.is_dir(), reason="QCONVERT_CMSIS_NN names no checkout of CMSIS-NN")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_kernel_of_cmsis_nn_gives_the_golden(
    case: Linear, rng: np.random.Generator, tmp_path: Path
) -> None:
    write_bundle(case.program(rng), tmp_path, ("c",), "oihw")
    single = [] if case.rounding == "tflite_double" else ["-DCMSIS_NN_USE_SINGLE_ROUNDING"]
    names = ["LAYER=layer", "MACROS=LAYER", "INPUT=golden_case_0_x", "GOLDEN=golden_case_0_y"]
    folders = [tmp_path / "include", tmp_path / "golden" / "case_0"]
    includes = [f"-I{folder}" for folder in (SOURCES / "Include", *folders)]
    kernels = [str(SOURCES / "Source" / name) for name in KERNELS]
    sources = [str(path) for folder in folders for path in folder.glob("*.c")]
    macros = [*single, *(f"-DTHE_{name}" for name in names)]
    files = [str(HERE / "cmsis_nn.c"), *sources, *kernels, "-o", str(tmp_path / "layer")]
    subprocess.run(["gcc", "-O1", *macros, *includes, *files], check=True)

    ran = subprocess.run([str(tmp_path / "layer")], capture_output=True, text=True, check=False)

    assert ran.stdout == "0\n"

"""Every operator, lowered and executed, against onnxruntime on the same Q/DQ model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qconvert.backends.raw.lower import lower
from qconvert.backends.raw.options import Options
from qconvert.errors import UnsupportedError
from qconvert.plan import Scheme
from qconvert.report import Report
from qconvert.runtimes.integer import IntegerRuntime
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.verification.stepwise import Stepper, Steps
from tests.backends.raw.nets import graph, inputs_of, quantized, weights_of

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.backends.raw.lower import Lowered


@dataclass(frozen=True)
class Case:
    id: str
    body: str
    ops: tuple[str, ...]
    """Operators of the program, in order."""
    shape: str = "1, 4, 9, 8"
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)

    def model(self, rng: np.random.Generator) -> ir.Model:
        """The float model."""
        text = f"g (float[{self.shape}] x) => (float[A] y) {{\n{self.body}\n}}"
        arrays = {name: np.asarray(array) for name, array in self.constants.items()}
        return graph(text, {**weights_of(rng, **self.weights), **arrays})


CONV = {"w": (8, 4, 3, 3), "b": (8,)}
CASES = [
    Case("conv", "y = Conv<pads = [1, 1, 1, 1]>(x, w, b)", ("conv",), weights=CONV),
    Case("conv_no_bias_stride_dilation", "y = Conv<strides = [2, 1], dilations = [1, 2]>(x, w)",
         ("conv",), weights=CONV),
    Case("conv_uneven_pads", "y = Conv<pads = [0, 2, 1, 0]>(x, w, b)", ("conv",), weights=CONV),
    Case("conv_same_lower", 'y = Conv<auto_pad = "SAME_LOWER", strides = [2, 2]>(x, w, b)',
         ("conv",), weights=CONV),
    Case("conv_groups", "y = Conv<group = 2>(x, w, b)", ("conv",),
         weights={"w": (6, 2, 3, 3), "b": (6,)}),
    Case("depthwise", "y = Conv<group = 4, pads = [1, 1, 1, 1]>(x, w, b)", ("depthwise",),
         weights={"w": (8, 1, 3, 3), "b": (8,)}),
    Case("conv_relu", "c = Conv(x, w, b) y = Relu(c)", ("conv",), weights=CONV),
    Case("conv_relu6", "c = Conv(x, w, b) y = Clip(c, lo, hi)", ("conv",), weights=CONV,
         constants={"lo": np.float32(0), "hi": np.float32(1.5)}),
    Case("conv_clip_below_zero", "c = Conv(x, w, b) y = Clip(c, lo)", ("conv",), weights=CONV,
         constants={"lo": np.float32(-0.7)}),
    Case("gemm", "y = Gemm(x, w, b)", ("fc",), shape="1, 20",
         weights={"w": (20, 7), "b": (7,)}),
    Case("gemm_transposed", "y = Gemm<transB = 1>(x, w)", ("fc",), shape="1, 20",
         weights={"w": (7, 20)}),
    Case("add", "c = Conv(x, w, b) d = Conv(x, v) y = Add(c, d)", ("conv", "conv", "add"),
         weights={**CONV, "v": (8, 4, 3, 3)}),
    Case("add_relu_of_itself", "a = Add(x, x) y = Relu(a)", ("add",)),
    Case("sub", "c = Conv(x, w) d = Conv(x, v) y = Sub(c, d)", ("conv", "conv", "add"),
         weights={"w": (8, 4, 3, 3), "v": (8, 4, 3, 3)}),
    Case("mul", "c = Conv(x, w) d = GlobalAveragePool(c) y = Mul(c, d)",
         ("conv", "avg_pool", "mul"), weights=CONV),
    Case("concat", "c = Conv(x, w) d = Conv(x, v) y = Concat<axis = 1>(c, d)",
         ("conv", "conv", "concat"), weights={"w": (3, 4, 3, 3), "v": (5, 4, 3, 3)}),
    Case("max_pool_ceil",
         "y = MaxPool<kernel_shape = [3, 2], strides = [2, 2], ceil_mode = 1>(x)", ("max_pool",)),
    Case("max_pool_pads",
         "y = MaxPool<kernel_shape = [3, 3], pads = [1, 0, 0, 1]>(x)", ("max_pool",)),
    Case("global_max_pool", "y = GlobalMaxPool(x)", ("max_pool",)),
    Case("avg_pool", "y = AveragePool<kernel_shape = [3, 2], strides = [2, 2]>(x)", ("avg_pool",)),
    Case("avg_pool_counts_padding",
         "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(x)",
         ("avg_pool",)),
    Case("avg_pool_counts_what_is_there",
         "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)", ("avg_pool",)),
    Case("avg_pool_ceil",
         "y = AveragePool<kernel_shape = [2, 3], strides = [2, 2], ceil_mode = 1>(x)",
         ("avg_pool",)),
    Case("global_average_pool", "y = GlobalAveragePool(x)", ("avg_pool",)),
    Case("reduce_mean", "y = ReduceMean<keepdims = 1>(x, axes)", ("avg_pool",),
         constants={"axes": np.array([2, 3])}),
    Case("reduce_mean_flat", "y = ReduceMean<keepdims = 0>(x, axes)", ("avg_pool", "reshape"),
         constants={"axes": np.array([-1, -2])}),
    Case("resize_twice", "y = Resize<mode = \"nearest\", "
         "coordinate_transformation_mode = \"asymmetric\", nearest_mode = \"floor\">(x, , s)",
         ("resize",), constants={"s": np.array([1, 1, 2, 3], np.float32)}),
    Case("resize_odd", 'y = Resize<mode = "nearest">(x, , , s)', ("resize",),
         constants={"s": np.array([1, 4, 5, 13])}),
    Case("pad", "y = Pad(x, p)", ("pad",), constants={"p": np.array([0, 1, 2, 0, 0, 0, 1, 3])}),
    Case("reshape", "y = Reshape(x, s)", ("reshape",), constants={"s": np.array([1, 2, 2, 72])}),
    Case("flatten", "y = Flatten(x)", ("reshape",)),
    Case("transpose", "y = Transpose<perm = [0, 2, 3, 1]>(x)", ("transpose",)),
    Case("slice_steps", "y = Slice(x, a, e, ax, st)", ("slice", "slice"),
         constants={"a": np.array([1, -1]), "e": np.array([9, -20]), "ax": np.array([2, 3]),
                    "st": np.array([2, -1])}),
    Case("split", "a, y = Split<axis = 1>(x, s)", ("slice",), constants={"s": np.array([1, 3])}),
    Case("gather", "y = Gather<axis = 1>(x, i)", ("gather",),
         constants={"i": np.array([3, 0, 2])}),
    Case("gather_one", "y = Gather<axis = 1>(x, i)", ("slice", "reshape"),
         constants={"i": np.array(2)}),
    Case("depth_to_space", "y = DepthToSpace<blocksize = 2>(x)",
         ("reshape", "transpose", "reshape")),
    Case("depth_to_space_crd", 'y = DepthToSpace<blocksize = 2, mode = "CRD">(x)',
         ("reshape", "transpose", "reshape")),
    Case("space_to_depth", "y = SpaceToDepth<blocksize = 2>(x)",
         ("reshape", "transpose", "reshape"), shape="1, 3, 4, 6"),
    Case("relu_alone", "y = Relu(x)", ("clamp",)),
    Case("sigmoid", "y = Sigmoid(x)", ("lut",)),
    Case("silu", "s = Sigmoid(x) y = Mul(x, s)", ("lut",)),
    Case("mish", "y = Mish(x)", ("lut",)),
    Case("hard_swish", "y = HardSwish(x)", ("lut",)),
    Case("leaky_relu", "c = Conv(x, w, b) y = LeakyRelu<alpha = 0.1>(c)", ("conv", "lut"),
         weights=CONV),
    Case("prelu_per_channel", "y = PRelu(x, s)", ("lut",), weights={"s": (4, 1, 1)}),
    Case("prelu_per_feature", "y = PRelu(x, s)", ("lut",), shape="1, 12", weights={"s": (12,)}),
    Case("affine", "m = Mul(x, k) y = Add(m, o)", ("lut", "lut"),
         weights={"k": (1, 4, 1, 1), "o": (4, 1, 1)}),
    Case("softmax_is_float", "c = Conv(x, w) g = GlobalAveragePool(c) f = Flatten(g) "
         "y = Softmax(f)", ("conv", "avg_pool", "reshape", "float"), weights=CONV),
    Case("float_between_integers", "c = Conv(x, w) n = Softmax<axis = 1>(c) y = Conv(n, v)",
         ("conv", "float", "conv"), weights={"w": (8, 4, 3, 3), "v": (2, 8, 1, 1)}),
    Case("float_first", "e = Exp(x) y = Conv(e, w)", ("float", "conv"), weights=CONV),
    Case("two_branches_of_float", "c = Conv(x, w) a = Softmax<axis = 1>(c) b = Erf(c) "
         "y = Add(a, b)", ("conv", "float", "float", "add"), weights={"w": (8, 4, 3, 3)}),
]  # fmt: skip

SCHEMES = [
    pytest.param(Scheme(), id="symmetric"),
    pytest.param(Scheme(asymmetric=True), id="asymmetric"),
    pytest.param(Scheme(power_of_two=True), id="power_of_two"),
]


def _steps(model: ir.Model, low: Lowered, folder: Path, feeds: list[dict[str, Any]]) -> Steps:
    for name, content in low.segments.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    outputs = [str(value.name) for value in model.graph.outputs]
    with (
        IntegerRuntime(low.program, lambda name: folder / name, threads=1) as runtime,
        OnnxRuntime(model, optimize=False, threads=1) as simulation,
    ):
        stepper = Stepper(model, outputs, runtime.values, above=0.999)
        for feed in feeds:
            stepper.add(feed, runtime)
            wanted, given = simulation.run(feed), runtime.run(feed)
            assert {name: array.shape for name, array in given.items()} == {
                name: array.shape for name, array in wanted.items()
            }
        stepper.close()
        result = stepper.result()
    assert result is not None
    return result


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_layer_is_within_one_code_of_onnxruntime(
    case: Case, scheme: Scheme, rng: np.random.Generator, tmp_path: Path
) -> None:
    model = quantized(case.model(rng), rng, scheme)
    low = lower(model, Options(), Report())

    steps = _steps(model, low, tmp_path, [inputs_of(model, rng) for _ in range(3)])

    assert tuple(layer.op for layer in low.program.layers) == case.ops
    assert steps.largest <= 1
    assert steps.cosine > 0.999


@pytest.mark.parametrize(
    ("options", "scheme"),
    [
        (Options(requantize="half_even"), Scheme(power_of_two=True)),
        (Options(requantize="half_away"), Scheme()),
        (Options(requantize="tflite_double"), Scheme(output_bits=8)),
        (Options(multiplier_bits=15), Scheme(output_bits=8)),
        (Options(multiplier_bits=16), Scheme()),
        (Options(bias_bits=16), Scheme()),
        (Options(), Scheme(weight_bits=4, log2_weights=True)),
        (Options(), Scheme(weight_bits=4, log2_weights=True, power_of_two=True)),
        (Options(), Scheme(weight_bits=2, activation_bits=3)),
        (Options(), Scheme(weight_bits=7, activation_bits=7)),
        (Options(), Scheme(per_tensor=True)),
        (Options(), Scheme(weight_bits=16, activation_bits=16)),
        (Options(bias_bits=16), Scheme(unsigned=True)),
    ],
    ids=str,
)
def test_every_scheme_is_within_one_code(
    options: Options, scheme: Scheme, rng: np.random.Generator, tmp_path: Path
) -> None:
    text = """g (float[1, 4, 9, 8] x) => (float[A] y) {
        c = Conv<pads = [1, 1, 1, 1]>(x, w, b)
        r = Relu(c)
        d = Conv<group = 6, pads = [1, 1, 1, 1]>(r, v, e)
        a = Add(r, d)
        p = GlobalAveragePool(a)
        f = Flatten(p)
        y = Gemm(f, m, n)
    }"""
    shapes = {"w": (6, 4, 3, 3), "b": (6,), "v": (6, 1, 3, 3), "e": (6,), "m": (6, 5), "n": (5,)}
    model = quantized(graph(text, weights_of(rng, **shapes)), rng, scheme)

    low = lower(model, options, Report())
    steps = _steps(model, low, tmp_path, [inputs_of(model, rng) for _ in range(3)])

    assert low.program.integer_only
    assert steps.largest <= 1


def test_half_even_powers_of_two_leave_nothing_to_round_differently(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    model = CASES[0].model(rng)
    model = quantized(model, rng, Scheme(power_of_two=True))

    low = lower(model, Options(requantize="half_even"), Report())
    steps = _steps(model, low, tmp_path, [inputs_of(model, rng) for _ in range(3)])

    assert low.program.numeric.requantization == "power_of_two"
    multiplier = low.program.parameter(low.program.layers[0], "multiplier")
    assert multiplier is not None
    assert multiplier.values is not None
    assert set(multiplier.values.tolist()) == {1}
    assert steps.differing == 0


def test_integer_only_names_every_float_operator(rng: np.random.Generator) -> None:
    text = """g (float[1, 4, 9, 8] x) => (float[A] y) {
        c = Conv(x, w)
        e = Erf(c)
        d = Conv(e, w2)
        y = Softmax<axis = 1>(d)
    }"""
    model = quantized(graph(text, weights_of(rng, w=(4, 4, 3, 3), w2=(2, 4, 1, 1))), rng)

    with pytest.raises(UnsupportedError) as caught:
        lower(model, Options(integer_only=True), Report())

    assert {problem.what for problem in caught.value.problems} == {
        "operator Erf",
        "operator Softmax",
    }


def test_a_nearly_constant_channel_gets_coarser_weights_instead_of_a_bias_that_overflows(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    weights = weights_of(rng, w=(3, 4, 3, 3), b=(3,))
    weights["w"][1] *= 1e-12
    text = "g (float[1, 4, 9, 8] x) => (float[A] y) { y = Conv(x, w, b) }"
    model = quantized(graph(text, weights), rng)

    low = lower(model, Options(), Report())
    steps = _steps(model, low, tmp_path, [inputs_of(model, rng) for _ in range(2)])

    assert steps.largest <= 1
    assert low.program.layers[0].accumulator_bits_needed <= 32


def test_sixteen_bit_activations_have_no_tables(rng: np.random.Generator) -> None:
    text = "g (float[1, 4, 9, 8] x) => (float[A] y) { y = Sigmoid(x) }"
    model = quantized(graph(text, {}), rng, Scheme(weight_bits=16, activation_bits=16))

    low = lower(model, Options(), Report())

    assert [layer.op for layer in low.program.layers] == ["float"]
    assert "16-bit" in low.floats["Y"]

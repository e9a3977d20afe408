"""Float layers: onnxruntime and ncnn on the same graph, and the shape of the artifact."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.backends.ncnn.backend import problems
from tests.backends.graphs import model_of
from tests.backends.ncnn.support import deploy, simulate

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One line of ONNX text on an input x of shape `x`, with seeded weights."""

    id: str
    body: str
    x: tuple[int, ...] = (1, 4, 9, 8)
    weights: tuple[tuple[str, tuple[int, ...]], ...] = ()
    kinds: tuple[str, ...] = field(default=())
    y: str = ""


W = ("w", (6, 4, 3, 3))
CASES = [
    Case("conv", "y = Conv(x, w)", weights=(W,), kinds=("Convolution",)),
    Case("conv_bias", "y = Conv(x, w, b)", weights=(W, ("b", (6,)))),
    Case("conv_pads_uneven", "y = Conv<pads = [1, 0, 2, 3]>(x, w)", weights=(W,)),
    Case("conv_dilation", "y = Conv<dilations = [2, 1], pads=[2, 1, 2, 1]>(x, w)", weights=(W,)),
    Case("conv_strides", "y = Conv<strides = [2, 3]>(x, w)", weights=(W,)),
    Case("conv_same_upper", 'y = Conv<auto_pad = "SAME_UPPER", strides=[2,2]>(x, w)', weights=(W,)),
    Case("conv_same_lower", 'y = Conv<auto_pad = "SAME_LOWER", strides=[2,2]>(x, w)', weights=(W,)),
    Case("conv_kernel_1x3", "y = Conv<pads = [0, 1, 0, 1]>(x, w)", weights=(("w", (6, 4, 1, 3)),)),
    Case("conv_depthwise", "y = Conv<group = 4>(x, w)", weights=(("w", (4, 1, 3, 3)),)),
    Case("conv_grouped", "y = Conv<group = 2>(x, w)", weights=(("w", (6, 2, 3, 3)),)),
    Case("conv_1d", "y = Conv<pads = [2, 1]>(x, w)", (1, 4, 20), (("w", (6, 4, 3)),)),
    Case("conv_3d", "y = Conv<pads=[1,0,1,1,0,1]>(x, w)", (1, 2, 5, 6, 7),
         (("w", (3, 2, 3, 3, 3)),)),
    Case("deconv", "y = ConvTranspose<strides = [2, 2]>(x, w, b)",
         weights=(("w", (4, 5, 3, 2)), ("b", (5,)))),
    Case("deconv_output_padding",
         "y = ConvTranspose<strides = [2, 3], pads=[1, 0, 1, 1], output_padding=[1, 2]>(x, w)",
         weights=(("w", (4, 5, 3, 3)),)),
    Case("deconv_grouped", "y = ConvTranspose<group = 2, strides = [2, 2]>(x, w)",
         weights=(("w", (4, 3, 2, 2)),)),
    Case("deconv_output_shape", "y = ConvTranspose<strides = [2, 2], output_shape=[18, 16]>(x, w)",
         weights=(("w", (4, 3, 3, 3)),)),
    Case("maxpool_tail", "y = MaxPool<kernel_shape = [2, 2], pads = [0, 0, 1, 1]>(x)"),
    Case("maxpool_ceil", "y = MaxPool<kernel_shape = [3, 3], strides=[2,2], ceil_mode = 1>(x)"),
    Case("maxpool_1d", "y = MaxPool<kernel_shape = [3], strides=[2]>(x)", (1, 4, 20)),
    Case("maxpool_3d", "y = MaxPool<kernel_shape = [2, 3, 2]>(x)", (1, 2, 5, 6, 7)),
    Case("avgpool", "y = AveragePool<kernel_shape = [3, 2], pads = [1, 1, 1, 0]>(x)"),
    Case("avgpool_counting",
         "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(x)"),
    Case("avgpool_counting_ceil",
         "y = AveragePool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 0, 0], "
         "count_include_pad = 1, ceil_mode = 1>(x)"),
    Case("avgpool_ceil",
         "y = AveragePool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(x)"),
    Case("global_average", "y = GlobalAveragePool(x)"),
    Case("global_max_1d", "y = GlobalMaxPool(x)", (1, 4, 20)),
    Case("gemm", "f = Flatten(x) y = Gemm<transB = 1, alpha = 0.5, beta = 2.0>(f, w, b)",
         weights=(("w", (7, 288)), ("b", (7,)))),
    Case("gemm_plain", "f = Flatten(x) y = Gemm(f, w)", weights=(("w", (288, 7)),)),
    Case("matmul_rows", "y = MatMul(x, w)", (1, 5, 6), (("w", (6, 3)),)),
    Case("matmul_images", "y = MatMul(x, w)", (1, 2, 5, 6), (("w", (6, 3)),)),
    Case("matmul_computed", "t = Transpose<perm = [0, 2, 1]>(x) y = MatMul(x, t)", (1, 5, 6)),
    Case("prelu", "y = PRelu(x, s)", weights=(("s", (4, 1, 1)),), kinds=("PReLU",)),
    Case("prelu_inner", "y = PRelu(x, s)", weights=(("s", (8,)),)),
    Case("leaky", "y = LeakyRelu<alpha = 0.1>(x)"),
    Case("relu6", "y = Clip(x, lo, hi)", weights=(("lo", ()), ("hi", ()))),
    Case("hardswish", "y = HardSwish(x)"),
    Case("hardsigmoid", "y = HardSigmoid<alpha = 0.1666667, beta = 0.5>(x)"),
    Case("elu", "y = Elu(x)"),
    Case("gelu", "y = Gelu(x)"),
    Case("gelu_tanh", 'y = Gelu<approximate = "tanh">(x)'),
    Case("mish", "y = Mish(x)"),
    Case("softmax_channels", "y = Softmax<axis = 1>(x)"),
    Case("softmax_width", "y = Softmax<axis = -1>(x)"),
    Case("log_softmax", "y = LogSoftmax<axis = 2>(x)"),
    Case("add_itself", "y = Add(x, x)"),
    Case("add_per_channel", "y = Add(x, w)", weights=(("w", (4, 1, 1)),), kinds=("Bias",)),
    Case("mul_per_channel", "y = Mul(w, x)", weights=(("w", (1, 4, 1, 1)),), kinds=("Scale",)),
    Case("add_per_row", "y = Add(x, w)", weights=(("w", (9, 1)),)),
    Case("add_per_column", "y = Add(x, w)", weights=(("w", (8,)),)),
    Case("scalar_minus", "y = Sub(w, x)", weights=(("w", ()),)),
    Case("scalar_over", "r = Exp(x) y = Div(w, r)", weights=(("w", (1,)),)),
    Case("broadcast_both", "a = ReduceMean<keepdims = 1>(x, i2) "
         "b = ReduceMean<keepdims = 1>(x, i3) y = Add(a, b)"),
    Case("squeeze_excite", "g = GlobalAveragePool(x) s = Sigmoid(g) y = Mul(s, x)"),
    Case("square", "y = Pow(x, two)"),
    Case("cube", "y = Pow(x, three)"),
    Case("max_of_three", "a = Neg(x) b = Abs(x) y = Max(x, a, b)"),
    Case("reduce_mean", "y = ReduceMean<keepdims = 0>(x, i23)"),
    Case("reduce_all", "y = ReduceSum<keepdims = 1>(x)"),
    Case("transpose_hwc", "y = Transpose<perm = [0, 2, 3, 1]>(x)"),
    Case("transpose_batch_inside", "y = Transpose<perm = [1, 0, 3, 2]>(x)"),
    Case("shuffle", "r = Reshape(x, s_shuffle) t = Transpose<perm = [0, 2, 1, 3, 4]>(r) "
         "y = Reshape(t, s_back)"),
    Case("concat_channels", "a = Relu(x) y = Concat<axis = 1>(x, a)"),
    Case("concat_width", "a = Relu(x) y = Concat<axis = -1>(x, a, x)"),
    Case("concat_batch", "a = Relu(x) y = Concat<axis = 0>(x, a)"),
    Case("split", "a, b = Split<axis = 1, num_outputs = 2>(x) y = Sub(a, b)"),
    Case("slice", "y = Slice(x, i11, i34, i23)"),
    Case("slice_strided", "y = Slice(x, i11, i99, i23, i22)"),
    Case("gather", "y = Gather<axis = 1>(x, i_picks)"),
    Case("pad", "y = Pad(x, p)"),
    Case("pad_channels", "y = Pad(x, pc)"),
    Case("pad_reflect", 'y = Pad<mode = "reflect">(x, p)'),
    Case("pad_edge", 'y = Pad<mode = "edge">(x, p)'),
    Case("expand", "g = GlobalMaxPool(x) y = Expand(g, s_image)"),
    Case("depth_to_space", "y = DepthToSpace<blocksize = 2>(x)"),
    Case("space_to_depth", "y = SpaceToDepth<blocksize = 2>(x)", (1, 3, 4, 6)),
    Case("resize_nearest", 'y = Resize<mode = "nearest">(x, , f2)'),
    Case("resize_linear", 'y = Resize<mode = "linear">(x, , f2)'),
    Case("resize_corners",
         'y = Resize<mode = "linear", coordinate_transformation_mode = "align_corners">(x, , , z)'),
    Case("resize_cubic", 'y = Resize<mode = "cubic">(x, , f2)'),
    Case("batchnorm", "y = BatchNormalization(x, v, b4, m, v)",
         weights=(("v", (4,)), ("b4", (4,)), ("m", (4,)))),
    Case("instancenorm", "y = InstanceNormalization(x, v, b4)",
         weights=(("v", (4,)), ("b4", (4,)))),
    Case("groupnorm", "y = GroupNormalization<num_groups = 2>(x, v, b4)",
         weights=(("v", (4,)), ("b4", (4,))), y="1, 4, 9, 8"),
    Case("layernorm", "y = LayerNormalization<axis = -1>(x, v, b4)", (1, 3, 4),
         (("v", (4,)), ("b4", (4,)))),
    Case("lrn", "y = LRN<size = 3, alpha = 0.5>(x)"),
    Case("l2_normalize", "y = LpNormalization<axis = 1>(x)"),
    Case("dead_end_is_dropped", "y = Relu(x)"),
    Case("output_is_the_input", "a = Relu(x) y = Identity(x)"),
]  # fmt: skip

CONSTANTS = {
    "i2": [2], "i3": [3], "i23": [2, 3], "i11": [1, 1], "i34": [3, 7], "i99": [99, 99],
    "i22": [2, 3], "i_picks": [3, 0, 1], "s_shuffle": [1, 2, 2, 9, 8], "s_back": [1, 4, 9, 8],
    "s_image": [1, 4, 9, 8], "p": [0, 0, 1, 2, 0, 0, 3, 1], "pc": [0, 1, 0, 0, 0, 2, 0, 0],
    "z": [1, 4, 5, 20],
}  # fmt: skip
FLOATS = {"f2": [1.0, 1.0, 2.0, 2.0], "two": 2.0, "three": 3.0}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_ncnn_agrees_with_onnxruntime(case: Case, rng: np.random.Generator) -> None:
    weights: dict[str, np.ndarray] = {
        name: np.asarray(rng.normal(size=shape), np.float32) for name, shape in case.weights
    }
    if "v" in weights:
        weights["v"] = np.abs(weights["v"]) + 0.1
    if case.id == "relu6":
        weights = {"lo": np.array(0.0, np.float32), "hi": np.array(0.75, np.float32)}
    constants: dict[str, np.ndarray] = {k: np.array(v, np.int64) for k, v in CONSTANTS.items()}
    constants |= {k: np.array(v, np.float32) for k, v in FLOATS.items()}
    words = set(case.body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    used = {name: array for name, array in constants.items() if name in words}
    shape = ", ".join(str(n) for n in case.x)
    model = model_of(
        f"g (float[{shape}] x) => (float[{case.y}] y) {{ {case.body} }}", **weights, **used
    )
    feed = {"x": rng.normal(size=case.x).astype(np.float32)}

    artifact = deploy(model, feed)

    np.testing.assert_allclose(artifact.outputs["y"], simulate(model, feed)["y"], 2e-4, 2e-5)
    assert set(case.kinds) <= set(artifact.kinds)


@dataclass(frozen=True)
class Recurrent:
    """A cell on a sequence of five."""

    id: str
    kind: str
    gates: int
    attributes: str = ""
    directions: int = 1


RECURRENT = [
    Recurrent("lstm", "LSTM", 4),
    Recurrent("lstm_reverse", "LSTM", 4, 'direction = "reverse",'),
    Recurrent("lstm_both", "LSTM", 4, 'direction = "bidirectional",', 2),
    Recurrent("gru", "GRU", 3, "linear_before_reset = 1,"),
    Recurrent("gru_both", "GRU", 3, 'linear_before_reset = 1, direction = "bidirectional",', 2),
    Recurrent("rnn", "RNN", 1),
]


@pytest.mark.parametrize("case", RECURRENT, ids=lambda case: case.id)
def test_recurrent_cells_agree_with_onnxruntime(case: Recurrent, rng: np.random.Generator) -> None:
    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=(case.directions, *shape)).astype(np.float32)

    model = model_of(
        f"""g (float[1, 5, 3] x) => (float[] y, float[] h) {{
          t = Transpose<perm = [1, 0, 2]>(x)
          y, h = {case.kind}<{case.attributes} hidden_size = 4>(t, w, r, b)
        }}""",
        w=draw(case.gates * 4, 3),
        r=draw(case.gates * 4, 4),
        b=draw(case.gates * 8),
    )
    feed = {"x": rng.normal(size=(1, 5, 3)).astype(np.float32)}

    artifact = deploy(model, feed)

    for name, expected in simulate(model, feed).items():
        np.testing.assert_allclose(artifact.outputs[name], expected, 1e-4, 1e-5)


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, int]:
    """A small convolution whose output is not empty."""
    names = {"group": (1, 3), "inputs": (1, 4), "outputs": (1, 4), "kh": (1, 4), "kw": (1, 4),
             "sh": (1, 3), "sw": (1, 3), "dh": (1, 2), "dw": (1, 2), "top": (0, 2), "left": (0, 2),
             "bottom": (0, 2), "right": (0, 2), "extra_h": (0, 5), "extra_w": (0, 5)}  # fmt: skip
    return {name: draw(st.integers(*bounds)) for name, bounds in names.items()}


@given(convolutions(), st.booleans())
def test_every_convolution_geometry_is_exact(g: dict[str, int], with_relu: bool) -> None:
    rng = np.random.default_rng(3)
    height = max(g["dh"] * (g["kh"] - 1) + 1 - g["top"] - g["bottom"], 1) + g["extra_h"]
    width = max(g["dw"] * (g["kw"] - 1) + 1 - g["left"] - g["right"], 1) + g["extra_w"]
    channels = g["inputs"] * g["group"]
    w = rng.normal(size=(g["outputs"] * g["group"], g["inputs"], g["kh"], g["kw"]))
    conv = (
        f"Conv<group = {g['group']}, strides = [{g['sh']}, {g['sw']}], "
        f"dilations = [{g['dh']}, {g['dw']}], "
        f"pads = [{g['top']}, {g['left']}, {g['bottom']}, {g['right']}]>(x, w)"
    )
    body = f"a = {conv} y = Relu(a)" if with_relu else f"y = {conv}"
    model = model_of(
        f"g (float[1, {channels}, {height}, {width}] x) => (float[] y) {{ {body} }}",
        w=w.astype(np.float32),
    )
    feed = {"x": rng.normal(size=(1, channels, height, width)).astype(np.float32)}

    artifact = deploy(model, feed)

    np.testing.assert_allclose(artifact.outputs["y"], simulate(model, feed)["y"], 1e-4, 1e-4)
    assert "ReLU" not in artifact.kinds


def test_everything_unsupported_is_named_at_once() -> None:
    model = model_of(
        "g (float[1, 4, 8, 8] x) => (float[] y, float[] z) {"
        " a = Relu(x) [first] b = Det(a) [second] y = Sinh(b) [third] z = Cosh(x) }"
    )

    found = problems(model)

    assert [problem.at for problem in found] == [
        "layer 'first'",
        "layer 'second'",
        "layer 'third'",
    ]
    assert "operator 'Det'" in found[0].what


def test_a_batch_is_refused() -> None:
    model = model_of("g (float[2, 4] x) => (float[] y) { y = Relu(x) }")

    assert "batch is 2" in problems(model)[0].why


def test_names_ncnn_cannot_read_are_replaced_and_reported(rng: np.random.Generator) -> None:
    model = model_of("g (float[1, 4] x) => (float[] y) { y = Relu(x) }")
    model.graph.inputs[0].name = "my input"
    model.graph.outputs[0].name = "a=b c"
    feed = {"my input": rng.normal(size=(1, 4)).astype(np.float32)}

    artifact = deploy(model, feed)

    assert artifact.written.blobs == {"my input": "my_input", "a=b c": "a_b_c"}
    np.testing.assert_array_equal(artifact.outputs["a=b c"], np.maximum(feed["my input"], 0))


def test_half_precision_storage_halves_the_weights(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    w = rng.normal(size=(8, 4, 3, 3)).astype(np.float32)
    model = model_of("g (float[1, 4, 9, 9] x) => (float[] y) { y = Conv(x, w) }", w=w)
    feed = {"x": rng.normal(size=(1, 4, 9, 9)).astype(np.float32)}

    artifact = deploy(model, feed, options={"fp16": True}, folder=tmp_path)

    assert (tmp_path / "model.bin").stat().st_size == 4 + w.size * 2
    np.testing.assert_allclose(artifact.outputs["y"], simulate(model, feed)["y"], 1e-2, 1e-2)

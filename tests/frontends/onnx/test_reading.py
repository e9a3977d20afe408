"""What the frontend does to a model: types, shapes, names, control flow, old operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
import pytest

from qconvert.errors import UnsupportedError, UsageError
from qconvert.graph import input_shapes, shape_of
from qconvert.report import Report
from tests.frontends.onnx.onnx_files import load, run, write

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir


def op_types(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@dataclass(frozen=True)
class Old:
    """A node of an earlier opset, compared with onnxruntime on the file itself."""

    id: str
    body: str
    opset: int = 7
    shape: tuple[int, ...] = (1, 4, 6, 5)
    weights: tuple[tuple[str, tuple[int, ...]], ...] = ()


W = (("w", (8, 4, 3, 3)),)
OLD = [
    Old("clip", "y = Clip<min = -0.5, max = 0.5>(x)"),
    Old("pad", "y = Pad<pads = [0, 0, 1, 2, 0, 0, 0, 1], value = 2.0>(x)"),
    Old("slice", "y = Slice<starts = [1, -4], ends = [3, 99999], axes = [1, 2]>(x)", 9),
    Old("squeeze", "y = Squeeze<axes = [0]>(x)"),
    Old("unsqueeze", "y = Unsqueeze<axes = [0]>(x)"),
    Old("reduce_sum", "y = ReduceSum<axes = [2], keepdims = 0>(x)"),
    Old("reduce_mean", "y = ReduceMean<axes = [2, 3]>(x)"),
    Old("softmax_over_all", "y = Softmax(x)"),
    Old("softmax_of_vectors", "y = Softmax(x)", shape=(1, 10, 1, 1)),
    Old("log_softmax_axis_2", "y = LogSoftmax<axis = 2>(x)", 11),
    Old("upsample", "y = Upsample<mode = 'nearest', scales = [1.0, 1.0, 2.0, 3.0]>(x)"),
    Old("upsample_linear", "y = Upsample<mode = 'linear', scales = [1.0, 1.0, 2.0, 2.0]>(x)"),
    Old("dropout", "y = Dropout<ratio = 0.5>(x)"),
    Old("conv_same_upper", "y = Conv<auto_pad = 'SAME_UPPER', strides = [2, 2]>(x, w)", weights=W),
    Old("conv_same_lower", "y = Conv<auto_pad = 'SAME_LOWER', strides = [2, 2]>(x, w)", weights=W),
    Old("conv_valid", "y = Conv<auto_pad = 'VALID'>(x, w)", weights=W),
    Old("maxpool_same", "y = MaxPool<auto_pad = 'SAME_UPPER', kernel_shape = [3, 2]>(x)"),
    Old(
        "averagepool_ceil",
        "y = AveragePool<kernel_shape = [2, 2], ceil_mode = 1>(x)",
        10,
    ),
    Old(
        "transpose_same_upper",
        "y = ConvTranspose<auto_pad = 'SAME_UPPER', strides = [2, 2]>(x, w)",
        weights=(("w", (4, 3, 3, 3)),),
    ),
    Old(
        "transpose_output_shape",
        "y = ConvTranspose<output_shape = [12, 10], strides = [2, 2]>(x, w)",
        weights=(("w", (4, 3, 3, 3)),),
    ),
    Old("image_scaler", "y = ImageScaler<scale = 0.5, bias = [1.0, 2.0, 3.0, 4.0]>(x)"),
    Old("affine", "y = Affine<alpha = 2.0, beta = 0.5>(x)"),
    Old("crop", "y = Crop<border = [1, 2, 1, 0]>(x)"),
    Old("crop_to_size", "y = Crop<border = [1, 2, 0, 0], scale = [2, 3]>(x)"),
    Old("scaled_tanh", "y = ScaledTanh<alpha = 2.0, beta = 0.5>(x)"),
    Old("parametric_softplus", "y = ParametricSoftplus<alpha = 2.0, beta = 0.5>(x)"),
    Old("thresholded_relu", "y = ThresholdedRelu<alpha = 0.5>(x)"),
    Old("mean_variance", "y = MeanVarianceNormalization<across_channels = 0>(x)"),
]


@pytest.mark.parametrize("case", OLD, ids=lambda case: case.id)
def test_an_old_node_gives_what_onnxruntime_gives(
    case: Old, tmp_path: Path, rng: np.random.Generator
) -> None:
    x = rng.normal(size=case.shape).astype(np.float32)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in case.weights}
    dims = ", ".join(map(str, case.shape))
    text = f"g (float[{dims}] x) => (float y) {{ {case.body} }}".replace("'", '"')
    path = write(tmp_path, text, weights, opset=case.opset)
    del onnx.load(path).graph.output[0].type.tensor_type.shape.dim[:]

    model = load(path)

    expected = run(path, x)
    np.testing.assert_allclose(run(model, x)[0], expected[0], rtol=1e-5, atol=1e-5)
    assert shape_of(model.graph.outputs[0]) == expected[0].shape


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("size", [4, 50_000])
def test_weights_of_any_float_become_float32(
    dtype: type, size: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    kind = {"float64": "double"}.get(np.dtype(dtype).name, np.dtype(dtype).name)
    weight: np.ndarray = rng.normal(size=size).astype(dtype)
    text = f"g ({kind}[1, {size}] x) => ({kind}[1, {size}] y) {{ y = Mul(x, w) }}"

    model = load(write(tmp_path, text, {"w": weight}, opset=14))

    (y,) = run(model, np.ones((1, size), np.float32))
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y[0], weight.astype(np.float32))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "double"])
def test_wide_and_narrow_floats_become_float32_inside_and_at_the_interface(
    dtype: str, tmp_path: Path
) -> None:
    body = f"""g ({dtype}[1, 4] x) => ({dtype}[1, 4] y) {{
        f = Constant<value = float[4] {{1.0, 2.0, 3.0, 4.0}}>()
        c = CastLike(f, x)
        s = Add(x, c)
        i = Cast<to = 1>(s)
        y = CastLike(i, x)
    }}"""
    path = write(tmp_path, body, opset=15)

    model = load(path)

    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(run(model, x)[0], [[2, 3, 4, 5]])
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    assert {str(value.dtype) for value in values} == {"FLOAT"}
    assert op_types(model) == ["Add"]


def test_integer_inputs_and_outputs_become_float32_with_a_warning(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """g (uint8[1, 2, 3, 4] image) => (int64[1, 3, 4] y) {
            f = Cast<to = 1>(image)
            y = ArgMax<axis = 1, keepdims = 0>(f)
        }""",
    )
    report = Report()

    model = load(path, report)

    x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    (y,) = run(model, x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, np.ones((1, 3, 4)))
    assert len(report.warnings) == 2


DEBRIS = """g (float[N, 4, 6, 5] x) => (float[N, M] y) {
    shape = Shape(x)
    zero = Constant<value = int64 {0}>()
    batch = Gather<axis = 0>(shape, zero)
    first = Unsqueeze<axes = [0]>(batch)
    minus = Constant<value = int64[1] {-1}>()
    target = Concat<axis = 0>(first, minus)
    same = Identity(x)
    r = Relu(same)
    y = Reshape(r, target)
}"""


def test_exporter_debris_folds_away_without_onnxsim(tmp_path: Path) -> None:
    model = load(write(tmp_path, DEBRIS, opset=11))

    assert op_types(model) == ["Relu", "Reshape"]
    assert input_shapes(model) == {"x": (1, 4, 6, 5)}
    assert shape_of(model.graph.outputs[0]) == (1, 120)


def test_onnxsim_and_our_folding_agree(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write(tmp_path, DEBRIS, opset=11)
    x = rng.normal(size=(1, 4, 6, 5)).astype(np.float32)
    report = Report()

    plain, simplified = load(path), load(path, report, simplify=True)

    np.testing.assert_array_equal(run(plain, x)[0], run(simplified, x)[0])
    assert not report.warnings


def test_an_unknown_size_is_refused_with_the_flag_that_gives_it(tmp_path: Path) -> None:
    path = write(tmp_path, "g (float[N, 3, H, W] data) => (float[N, 3, H, W] y) { y = Relu(data) }")

    with pytest.raises(UnsupportedError) as caught:
        load(path)

    assert "'data' [1, 3, H, W] leaves axes 2, 3 open" in caught.value.what
    assert "--input-shape data=1,3" in caught.value.fix


def test_input_shape_fixes_what_is_open(tmp_path: Path) -> None:
    path = write(tmp_path, "g (float[N, 3, H, W] data) => (float[N, 3, H, W] y) { y = Relu(data) }")

    model = load(path, input_shapes={"data": (1, 3, 5, 7)})

    assert shape_of(model.graph.outputs[0]) == (1, 3, 5, 7)


def test_a_shape_for_no_input_is_a_usage_error(tmp_path: Path) -> None:
    path = write(tmp_path, "g (float[1, 3] x) => (float[1, 3] y) { y = Relu(x) }")

    with pytest.raises(UsageError, match="no input of the model"):
        load(path, input_shapes={"data": (1, 3)})


def test_a_declared_batch_becomes_1_also_in_reshapes(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """g (float[8, 4, 2, 2] x) => (float[8, 16] y) {
            shape = Constant<value = int64[2] {8, -1}>()
            y = Reshape(x, shape)
        }""",
    )
    report = Report()

    model = load(path, report)

    assert shape_of(model.graph.outputs[0]) == (1, 16)
    assert "batch 8" in report.warnings[0]


def test_initializers_listed_as_inputs_are_weights(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "g (float[1, 3] x, float[3] w) => (float[1, 3] y) { y = Add(x, w) }",
        {"w": np.ones(3, np.float32)},
    )

    assert list(input_shapes(load(path))) == ["x"]


def test_a_branch_with_a_known_condition_is_inlined(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """g (float[1, 3] x) => (float[1, 3] y) {
            c = Constant<value = bool {1}>()
            y = If (c) <
                then_branch = a () => (float[1, 3] t) { t = Relu(x) },
                else_branch = b () => (float[1, 3] e) { e = Neg(x) }
            >
        }""",
    )

    model = load(path)

    assert op_types(model) == ["Relu"]
    assert model.graph.outputs[0].name == "y"


LOOP = """g (float[1, 3] x) => (float[1, 3] y, float[4, 1, 3] all) {
    n = Constant<value = int64 {4}>()
    c = Constant<value = bool {1}>()
    y, all = Loop (n, c, x) <
        body = b (int64 i, bool going, float[1, 3] s)
            => (bool still, float[1, 3] t, float[1, 3] u) {
            still = Identity(going)
            f = Cast<to = 1>(i)
            t = Add(s, f)
            u = Mul(t, t)
        }
    >
}"""


def test_a_loop_with_a_known_course_is_unrolled(tmp_path: Path) -> None:
    path = write(tmp_path, LOOP)
    x = np.array([[1, 2, 3]], np.float32)

    model = load(path)

    assert "Loop" not in op_types(model)
    for actual, expected in zip(run(model, x), run(path, x), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_functions_are_inlined_with_their_attributes(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 17, "my" : 1]>
    g (float[1, 3] x) => (float[1, 3] y) { y = my.Scaled<alpha = 3.0>(x) }
    <domain: "my", opset_import: ["" : 17]>
    Scaled <alpha> (a) => (b) {
        k = Constant<value_float: float = @alpha>()
        b = Mul(a, k)
    }"""
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())

    model = load(path)

    assert op_types(model) == ["Mul"]
    np.testing.assert_array_equal(run(model, np.ones((1, 3), np.float32))[0], [[3, 3, 3]])


def test_everything_unsupported_is_named_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """g (float[1, 3] x) => (float[1, 3] y) {
            a = com.microsoft.Inverse(x)
            b = RandomNormalLike(x)
            c = NoSuchOperator(x)
            y = Sum(a, b, c)
        }""",
        contrib=True,
    )

    with pytest.raises(UnsupportedError) as caught:
        load(path)

    assert [problem.what for problem in caught.value.problems] == [
        "operator 'com.microsoft::Inverse'",
        "operator 'RandomNormalLike'",
        "operator 'NoSuchOperator'",
    ]


def test_an_unsupported_operator_that_nothing_needs_does_no_harm(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "g (float[1, 3] x) => (float[1, 3] y) { r = RandomNormalLike(x) y = Relu(x) }",
    )

    assert op_types(load(path)) == ["Relu"]


def test_nodes_get_names_and_names_are_unique(tmp_path: Path) -> None:
    path = write(
        tmp_path, "g (float[1, 3] x) => (float[1, 3] y) { a = Relu(x) b = Neg(a) y = Relu(b) }"
    )
    model = onnx.load(path)
    model.graph.node[0].name = model.graph.node[1].name = "same"
    path.write_bytes(model.SerializeToString())

    assert [node.name for node in load(path).graph] == ["same", "same_1", "Relu_y"]


def test_an_output_that_is_an_input_keeps_both_names(tmp_path: Path) -> None:
    path = write(tmp_path, "g (float[1, 3] x) => (float[1, 3] y) { y = Identity(x) }")

    model = load(path)

    assert [value.name for value in model.graph.outputs] == ["y"]
    np.testing.assert_array_equal(run(model, np.ones((1, 3), np.float32))[0], np.ones((1, 3)))

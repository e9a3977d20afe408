"""Layer by layer against OpenCV's own Caffe importer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.frontends.caffe.nets import Net, layer, read, run, run_opencv

if TYPE_CHECKING:
    from pathlib import Path

# Every example writes its own two files into the one folder.
ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def agrees(net: Net, folder: Path, outputs: str = "out") -> None:
    """Our graph in onnxruntime gives what OpenCV gives."""
    actual = run(read(net, folder), net.inputs())
    for name, expected in run_opencv(net, outputs.split()).items():
        assert actual[name].shape == expected.shape
        np.testing.assert_allclose(actual[name], expected, rtol=1e-4, atol=1e-5)


CASES = [
    Net("absval", layer("AbsVal")),
    Net("bnll", layer("BNLL")),
    Net("elu", layer("ELU")),
    Net("elu_alpha", layer("ELU", "elu_param { alpha: 0.3 }")),
    Net("sigmoid", layer("Sigmoid")),
    Net("tanh", layer("TanH")),
    Net("relu", layer("ReLU")),
    Net("relu_slope", layer("ReLU", "relu_param { negative_slope: 0.1 }")),
    Net("relu6", layer("ReLU6")),
    Net("prelu", layer("PReLU"), blobs={"out": [(4,)]}),
    Net("prelu_shared", layer("PReLU", "prelu_param { channel_shared: true }"),
        blobs={"out": [(1,)]}),
    Net("power", layer("Power", "power_param { power: 2 scale: 0.5 shift: 3 }")),
    Net("power_affine", layer("Power", "power_param { scale: 0.5 shift: -3 }")),
    Net("exp", layer("Exp", "exp_param { base: 2 scale: 0.5 shift: 1 }")),
    Net("lrn_across", layer("LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 }")),
    Net("lrn_within", layer(
        "LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 norm_region: WITHIN_CHANNEL }")),
    Net("mvn", layer("MVN", "mvn_param { eps: 1e-9 }")),
    Net("mvn_across", layer("MVN", "mvn_param { across_channels: true }")),
    Net("mvn_mean_only", layer("MVN", "mvn_param { normalize_variance: false }")),
    Net("normalize", layer("Normalize", "norm_param { across_spatial: false }"),
        blobs={"out": [(1,)]}),
    Net("normalize_per_channel",
        layer("Normalize", "norm_param { across_spatial: false channel_shared: false }"),
        blobs={"out": [(4,)]}),
    Net("normalize_across", layer("Normalize"), blobs={"out": [(1,)]}),
    Net("batch_norm", layer("BatchNorm", "batch_norm_param { eps: 0.002 }"),
        blobs={"out": [(4,), np.array([1, 2, 3, 4], np.float32), np.array([2.5], np.float32)]}),
    Net("scale", layer("Scale"), blobs={"out": [(4,)]}),
    Net("scale_bias", layer("Scale", "scale_param { bias_term: true }"),
        blobs={"out": [(4,), (4,)]}),
    Net("eltwise_sum", layer("Eltwise", bottoms="xyz"), ((1, 2, 3, 4),) * 3),
    Net("eltwise_prod", layer("Eltwise", "eltwise_param { operation: PROD }", bottoms="xyz"),
        ((1, 2, 3, 4),) * 3),
    Net("eltwise_max", layer("Eltwise", "eltwise_param { operation: MAX }", bottoms="xy"),
        ((1, 2, 3, 4),) * 2),
    Net("eltwise_coeff",
        layer("Eltwise", "eltwise_param { coeff: 1 coeff: -1 coeff: 0.3 }", bottoms="xyz"),
        ((1, 2, 3, 4),) * 3),
    Net("concat", layer("Concat", bottoms="xy"), ((1, 2, 3, 4), (1, 5, 3, 4))),
    Net("concat_axis", layer("Concat", "concat_param { axis: -1 }", bottoms="xy"),
        ((1, 2, 3, 4), (1, 2, 3, 1))),
    Net("softmax", layer("Softmax")),
    Net("softmax_axis", layer("Softmax", "softmax_param { axis: 2 }")),
    Net("flatten", layer("Flatten")),
    Net("flatten_range", layer("Flatten", "flatten_param { axis: 1 end_axis: 2 }")),
    Net("permute", layer("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }")),
    Net("reshape", layer("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 14 } }")),
    Net("reshape_axis",
        layer("Reshape", "reshape_param { axis: 1 num_axes: 1 shape { dim: 2 dim: 2 } }")),
    Net("crop", layer("Crop", "crop_param { offset: 1 offset: 2 }", bottoms="xy"),
        ((1, 3, 8, 9), (1, 3, 4, 5))),
    Net("inner_product", layer("InnerProduct", "inner_product_param { num_output: 5 }"),
        blobs={"out": [(5, 168), (5,)]}),
    Net("inner_product_no_bias",
        layer("InnerProduct", "inner_product_param { num_output: 5 bias_term: false }"),
        blobs={"out": [(5, 168)]}),
    Net("inner_product_axis_2",
        layer("InnerProduct", "inner_product_param { num_output: 5 axis: 2 }"),
        blobs={"out": [(5, 42), (5,)]}),
    Net("shuffle_channel", layer("ShuffleChannel", "shuffle_channel_param { group: 2 }"),
        ((1, 6, 3, 4),)),
    Net("interp", layer("Interp", "interp_param { height: 11 width: 5 }")),
    Net("interp_zoom", layer("Interp", "interp_param { zoom_factor: 3 }")),
]  # fmt: skip


@pytest.mark.parametrize("net", CASES, ids=lambda net: net.id)
def test_layer_agrees_with_opencv(net: Net, tmp_path: Path) -> None:
    agrees(net, tmp_path)


@st.composite
def convolutions(draw: st.DrawFn, kind: str) -> Net:
    """A convolution or deconvolution of random geometry."""
    group = draw(st.integers(1, 3))
    inputs, outputs = (group * draw(st.integers(1, 3)) for _ in range(2))
    kernel, stride, dilation = (
        [draw(st.integers(1, most)) for _ in range(2)] for most in (4, 3, 3)
    )
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    pad = [draw(st.integers(0, size // 2)) for size in extent]
    size = [max(draw(st.integers(1, 9)), e - 2 * p) for e, p in zip(extent, pad, strict=True)]
    if kind == "Deconvolution":
        grown = zip(size, stride, extent, pad, strict=True)
        assume(all(s * (n - 1) + e - 2 * p > 0 for n, s, e, p in grown))
    bias = draw(st.booleans())
    names = (("kernel", kernel), ("stride", stride), ("pad", pad))
    pairs = " ".join(f"{key}_h: {h} {key}_w: {w}" for key, (h, w) in names)
    dilations = " ".join(f"dilation: {number}" for number in dilation)
    weight = (
        (outputs, inputs // group, *kernel)
        if kind == "Convolution"
        else (inputs, outputs // group, *kernel)
    )
    body = (
        f"convolution_param {{ num_output: {outputs} group: {group} {pairs} {dilations} "
        f"bias_term: {str(bias).lower()} }}"
    )
    blobs = [weight, (outputs,)] if bias else [weight]
    return Net(kind, layer(kind, body), ((1, inputs, *size),), {"out": blobs})


@ONE_FOLDER
@given(net=convolutions("Convolution"))
def test_convolution_of_any_geometry_agrees_with_opencv(net: Net, tmp_path: Path) -> None:
    agrees(net, tmp_path)


@ONE_FOLDER
@given(net=convolutions("Deconvolution"))
def test_deconvolution_of_any_geometry_agrees_with_opencv(net: Net, tmp_path: Path) -> None:
    # OpenCV dilates no deconvolution.
    assume("dilation: 2" not in net.layers and "dilation: 3" not in net.layers)
    agrees(net, tmp_path)


@st.composite
def poolings(draw: st.DrawFn) -> Net:
    """A pooling of random geometry: odd sizes, windows over the edge, both roundings."""
    kernel = [draw(st.integers(1, 5)) for _ in range(2)]
    stride = [draw(st.integers(1, k)) for k in kernel]
    pad = [draw(st.integers(0, (k - 1) // 2 if k < 3 else k - 1)) for k in kernel]
    size = [max(draw(st.integers(1, 11)), k - 2 * p, p) for k, p in zip(kernel, pad, strict=True)]
    kind = draw(st.sampled_from(["MAX", "AVE"]))
    rounding = draw(st.sampled_from(["", "ceil_mode: false"]))
    names = (("kernel", kernel), ("stride", stride), ("pad", pad))
    pairs = " ".join(f"{key}_h: {h} {key}_w: {w}" for key, (h, w) in names)
    body = f"pooling_param {{ pool: {kind} {pairs} {rounding} }}"
    return Net(kind, layer("Pooling", body), ((1, 2, *size),))


@settings(ONE_FOLDER, max_examples=150)
@given(net=poolings())
def test_pooling_of_any_geometry_agrees_with_opencv(net: Net, tmp_path: Path) -> None:
    agrees(net, tmp_path)


@pytest.mark.parametrize("kind", ["MAX", "AVE"])
def test_global_pooling_agrees_with_opencv(kind: str, tmp_path: Path) -> None:
    body = f"pooling_param {{ pool: {kind} global_pooling: true }}"

    agrees(Net(kind, layer("Pooling", body)), tmp_path)


@ONE_FOLDER
@given(points=st.lists(st.integers(1, 8), unique=True, max_size=3), axis=st.sampled_from([1, 2]))
def test_slice_agrees_with_opencv(points: list[int], axis: int, tmp_path: Path) -> None:
    tops = " ".join(f"out{index}" for index in range(len(points) + 1)) if points else "out0 out1"
    cut = " ".join(f"slice_point: {point}" for point in sorted(points))
    names = "".join(f' top: "{top}"' for top in tops.split())
    # OpenCV gives a layer's second output no name of its own: read them through layers.
    readers = "".join(
        f'layer {{ name: "{top}p" type: "Power" bottom: "{top}" top: "{top}p" '
        "power_param { scale: 2 } }\n"
        for top in tops.split()
    )
    text = (
        f'layer {{ name: "cut" type: "Slice" bottom: "x"{names} '
        f"slice_param {{ axis: {axis} {cut} }} }}\n{readers}"
    )
    shape = (1, 10, 3, 2) if axis == 1 else (1, 3, 10, 2)

    agrees(Net("slice", text, (shape,)), tmp_path, " ".join(f"{top}p" for top in tops.split()))


PRIORS = [
    "min_size: 30 max_size: 60 aspect_ratio: 2 flip: true clip: false",
    "min_size: 20 max_size: 35 aspect_ratio: 2 aspect_ratio: 3 clip: true step: 16",
    "min_size: 12 aspect_ratio: 0.5 flip: false clip: false offset: 0.3",
    "min_size: 10 min_size: 16 min_size: 24 clip: false",
    "min_size: 20 step_h: 8 step_w: 16 clip: false",
]


def prior(body: str) -> Net:
    """A net of one PriorBox."""
    variances = "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2"
    text = layer("PriorBox", f"prior_box_param {{ {body} {variances} }}", bottoms="xy")
    return Net("prior", text, ((1, 4, 5, 7), (1, 3, 80, 120)))


@pytest.mark.parametrize("body", PRIORS)
def test_prior_box_agrees_with_opencv(body: str, tmp_path: Path) -> None:
    agrees(prior(body), tmp_path)

"""Layers that OpenCV lacks or reads differently, against Caffe's own definition in numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qconvert.source import ReadOptions
from tests.frontends.caffe.nets import Net, layer, read, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from qconvert.quant import F32

X = (1, 4, 7, 6)


@dataclass(frozen=True)
class Case:
    """A net and what its layer `out` is by definition, from inputs and blobs."""

    net: Net
    expected: Callable[..., npt.NDArray[Any]]

    @property
    def id(self) -> str:
        return self.net.id


def _reorg(x: F32, stride: int, *, reverse: bool = False) -> F32:
    """Darknet's reorg_cpu on the input's sizes, loop by loop; `reverse` is its forward = 1."""
    _, c, h, w = x.shape
    depth = c // stride**2
    flat, out = x.ravel(), np.empty(x.size, np.float32)
    for k, j, i in np.ndindex(c, h, w):
        k2, offset = k % depth, k // depth
        w2, h2 = i * stride + offset % stride, j * stride + offset // stride
        large = w2 + w * stride * (h2 + h * stride * k2)
        small = i + w * (j + h * k)
        if reverse:
            out[large] = flat[small]
        else:
            out[small] = flat[large]
    if reverse:
        return out.reshape(1, depth, h * stride, w * stride)
    return out.reshape(1, c * stride**2, h // stride, w // stride)


def _unfold(x: F32, kernel: int) -> F32:
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (2, 3))
    moved = windows.transpose(0, 1, 4, 5, 2, 3)
    return moved.reshape(1, -1, *moved.shape[4:])


def _lrn(x: F32) -> F32:
    padded = np.pad(x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    total = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return np.asarray(x / (2 + 0.5 / 3 * total) ** 0.6, np.float32)


def _bilinear(x: F32, height: int, width: int) -> F32:
    """Corners on corners, axis by axis."""
    for axis, size in ((2, height), (3, width)):
        places = np.linspace(0, x.shape[axis] - 1, size)
        low = np.minimum(places.astype(int), max(x.shape[axis] - 2, 0))
        high = np.minimum(low + 1, x.shape[axis] - 1)
        part = (places - low).reshape((-1, 1) if axis == 2 else (-1,))
        x = x.take(low, axis) * (1 - part) + x.take(high, axis) * part
    return x.astype(np.float32)


def _max_bins(x: F32, bins: int) -> F32:
    """One level of SPP where the bins divide the plane."""
    _, c, h, w = x.shape
    maxima: F32 = x.reshape(1, c, bins, h // bins, bins, w // bins).max((3, 5))
    return maxima.reshape(1, -1)


CASES = [
    Case(Net("axpy", layer("Axpy", bottoms="xyz"), ((1, 3), (1, 3, 4, 5), (1, 3, 4, 5))),
         lambda a, x, y: a[..., None, None] * x + y),
    Case(Net("lrn_k", layer("LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 k: 2 }")),
         _lrn),
    Case(Net("mvn_eps", layer("MVN", "mvn_param { eps: 0.5 }")),
         lambda x: (x - x.mean((2, 3), keepdims=True)) / (x.std((2, 3), keepdims=True) + 0.5)),
    Case(Net("threshold", layer("Threshold", "threshold_param { threshold: 0.25 }")),
         lambda x: (x > 0.25).astype(np.float32)),
    Case(Net("log", layer("Log", "log_param { base: 10 scale: 0.1 shift: 2 }")),
         lambda x: np.log10(0.1 * x + 2)),
    Case(Net("exp", layer("Exp", "exp_param { scale: 0.5 }")), lambda x: np.exp(0.5 * x)),
    Case(Net("power_identity", layer("Power")), lambda x: x),
    Case(Net("power_zero", layer("Power", "power_param { power: 0 }")), np.ones_like),
    Case(Net("swish", layer("Swish", "swish_param { beta: 1.5 }")),
         lambda x: x / (1 + np.exp(-1.5 * x))),
    Case(Net("clip", layer("Clip", "clip_param { min: -0.5 max: 0.25 }")),
         lambda x: x.clip(-0.5, 0.25)),
    Case(Net("relu6_n", layer("ReLU6", "relu6_param { n: 1 }")), lambda x: x.clip(0, 1)),
    Case(Net("prelu_of_vectors", layer("PReLU"), ((1, 4),), {"out": [(4,)]}),
         lambda x, slope: np.where(x > 0, x, slope * x)),
    Case(Net("reduction_sum", layer("Reduction", "reduction_param { axis: 2 coeff: 0.5 }")),
         lambda x: 0.5 * x.sum((2, 3))),
    Case(Net("reduction_mean",
             layer("Reduction", "reduction_param { operation: MEAN axis: -1 }")),
         lambda x: x.mean(-1)),
    Case(Net("reduction_asum",
             layer("Reduction", "reduction_param { operation: ASUM axis: 1 }")),
         lambda x: np.abs(x).sum((1, 2, 3))),
    Case(Net("reduction_sumsq", layer("Reduction", "reduction_param { operation: SUMSQ }")),
         lambda x: (x**2).sum()),
    Case(Net("argmax_axis", layer("ArgMax", "argmax_param { axis: 1 }")),
         lambda x: x.argmax(1)[:, None]),
    Case(Net("argmax_values", layer("ArgMax", "argmax_param { axis: 1 out_max_val: true }")),
         lambda x: x.max(1, keepdims=True)),
    Case(Net("argmax_top_k", layer("ArgMax", "argmax_param { top_k: 3 }"), ((1, 9),)),
         lambda x: np.argsort(-x)[:, None, :3]),
    Case(Net("argmax_pairs", layer("ArgMax", "argmax_param { top_k: 2 out_max_val: true }")),
         lambda x: np.stack([np.argsort(-x.ravel())[:2], np.sort(-x.ravel())[:2] * -1])
         .reshape(1, 2, 2, 1)),
    Case(Net("tile", layer("Tile", "tile_param { axis: 2 tiles: 3 }")),
         lambda x: np.tile(x, (1, 1, 3, 1))),
    Case(Net("bias", layer("Bias"), blobs={"out": [(4,)]}),
         lambda x, bias: x + bias[:, None, None]),
    Case(Net("bias_of_two", layer("Bias", "bias_param { axis: 0 }", bottoms="xy"), (X, (1, 4))),
         lambda x, bias: x + bias[..., None, None]),
    Case(Net("bias_all_axes", layer("Bias", "bias_param { num_axes: -1 }"),
             blobs={"out": [(4, 7, 6)]}),
         lambda x, bias: x + bias),
    Case(Net("scale_of_two", layer("Scale", "scale_param { axis: 0 }", bottoms="xy"),
             (X, (1, 4))),
         lambda x, scale: x * scale[..., None, None]),
    Case(Net("scale_of_two_with_bias",
             layer("Scale", "scale_param { axis: 0 bias_term: true }", bottoms="xy"),
             (X, (1, 4)), {"out": [(1, 4)]}),
         lambda x, scale, bias: x * scale[..., None, None] + bias[..., None, None]),
    Case(Net("scale_scalar", layer("Scale", "scale_param { axis: 0 num_axes: 0 }"),
             blobs={"out": [(1,)]}),
         lambda x, scale: x * scale),
    Case(Net("batch_norm_factor_zero", layer("BatchNorm"),
             blobs={"out": [(4,), np.ones(4, np.float32), np.zeros(1, np.float32)]}),
         lambda x, *_: x / np.sqrt(np.float32(1e-5))),
    Case(Net("batch_norm_of_the_image",
             layer("BatchNorm", "batch_norm_param { use_global_stats: false }"),
             blobs={"out": [(4,), (4,), (1,)]}),
         lambda x, *_: (x - x.mean((2, 3), keepdims=True))
         / np.sqrt(x.var((2, 3), keepdims=True) + 1e-5)),
    Case(Net("bn_two_blobs", layer("BN"), blobs={"out": [(1, 4, 1, 1), (1, 4, 1, 1)]}),
         lambda x, scale, shift: x * scale + shift),
    Case(Net("bn_four_blobs", layer("BN", "bn_param { frozen: true }"),
             blobs={"out": [(4,), (4,), (4,), np.array([1, 2, 3, 4], np.float32)]}),
         lambda x, s, b, m, v: (x - m[:, None, None]) / np.sqrt(v[:, None, None] + 1e-5)
         * s[:, None, None] + b[:, None, None]),
    Case(Net("inner_product_transposed",
             layer("InnerProduct", "inner_product_param { num_output: 3 transpose: true }"),
             ((1, 5),), {"out": [(5, 3), (3,)]}),
         lambda x, w, b: x @ w + b),
    Case(Net("inner_product_last_axis",
             layer("InnerProduct", "inner_product_param { num_output: 3 axis: -1 }"),
             ((1, 4, 5),), {"out": [(3, 5), (3,)]}),
         lambda x, w, b: x @ w.T + b),
    Case(Net("reorg", layer("Reorg", "reorg_param { stride: 2 }"), ((1, 8, 4, 6),)),
         lambda x: _reorg(x, 2)),
    Case(Net("reorg_reverse", layer("Reorg", "reorg_param { stride: 2 reverse: true }"),
             ((1, 12, 3, 5),)),
         lambda x: _reorg(x, 2, reverse=True)),
    Case(Net("pixel_shuffle", layer("PixelShuffle", "pixel_shuffle_param { upscale_factor: 2 }"),
             ((1, 8, 2, 3),)),
         lambda x: x.reshape(1, 2, 2, 2, 2, 3).transpose(0, 1, 4, 2, 5, 3).reshape(1, 2, 4, 6)),
    Case(Net("channel_shuffle", layer("ChannelShuffle", "channel_shuffle_param { group: 3 }"),
             ((1, 6, 2, 3),)),
         lambda x: x.reshape(1, 3, 2, 2, 3).swapaxes(1, 2).reshape(1, 6, 2, 3)),
    Case(Net("upsample", layer("Upsample", "upsample_param { scale: 3 }")),
         lambda x: x.repeat(3, 2).repeat(3, 3)),
    Case(Net("nn_upsample", layer("NNUpsample", "nn_upsample_param { resize: 2 }")),
         lambda x: x.repeat(2, 2).repeat(2, 3)),
    Case(Net("interp_factors", layer("Interp", "interp_param { shrink_factor: 2 zoom_factor: 3 }"),
             ((1, 2, 9, 7),)),
         lambda x: _bilinear(x, 13, 10)),
    Case(Net("interp_cut", layer("Interp", "interp_param { height: 5 width: 9 pad_beg: -1 }")),
         lambda x: _bilinear(x[:, :, 1:, 1:], 5, 9)),
    Case(Net("interp_like", layer("Interp", bottoms="xy"), ((1, 2, 4, 5), (1, 3, 8, 2))),
         lambda x, _: _bilinear(x, 8, 2)),
    Case(Net("im2col", layer("Im2col", "convolution_param { kernel_size: 3 }")),
         lambda x: _unfold(x, 3)),
    Case(Net("spp", layer("SPP", "spp_param { pyramid_height: 3 }"), ((1, 3, 8, 4),)),
         lambda x: np.concatenate([_max_bins(x, bins) for bins in (1, 2, 4)], 1)),
    Case(Net("split", layer("Split", tops="one two") + layer(
        "Eltwise", 'bottom: "one" bottom: "two"', bottoms="")), lambda x: 2 * x),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_layer_is_what_caffe_defines(case: Case, tmp_path: Path) -> None:
    net = case.net
    blobs = [blob for arrays in net.weights().values() for blob in arrays]

    actual = run(read(net, tmp_path), net.inputs())["out"]

    expected = np.asarray(case.expected(*net.inputs().values(), *blobs), np.float32)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_unpooling_puts_numbers_where_the_mask_says(tmp_path: Path) -> None:
    text = (
        'layer { name: "pool" type: "Pooling" bottom: "x" top: "pool" top: "mask"\n'
        "  pooling_param { kernel_size: 2 stride: 2 } }\n"
        'layer { name: "out" type: "Upsample" bottom: "pool" bottom: "mask" top: "out"\n'
        "  upsample_param { scale: 2 } }\n"
    )
    net = Net("unpool", text, ((1, 3, 6, 8),))
    x = net.inputs()["x"]

    actual = run(read(net, tmp_path), {"x": x})["out"]

    windows = x.reshape(1, 3, 3, 2, 4, 2).max((3, 5), keepdims=True)
    kept = np.broadcast_to(windows, (1, 3, 3, 2, 4, 2)).reshape(x.shape) == x
    np.testing.assert_array_equal(actual, np.where(kept, x, 0))


def test_indices_choose_rows(tmp_path: Path) -> None:
    text = (
        'layer { name: "out" type: "Embed" bottom: "x" top: "out"\n'
        "  embed_param { num_output: 3 input_dim: 5 } }\n"
    )
    net = Net("embed", text, ((1, 4),), {"out": [(5, 3), (3,)]})
    table, bias = net.weights()["out"]

    actual = run(read(net, tmp_path), {"x": np.array([[4, 0, 2, 2]], np.float32)})["out"]

    np.testing.assert_array_equal(actual, table[[[4, 0, 2, 2]]] + bias)


def test_equal_values_give_the_last_index(tmp_path: Path) -> None:
    net = Net("ties", layer("ArgMax", "argmax_param { axis: 1 }"), ((1, 5),))

    actual = run(read(net, tmp_path), {"x": np.array([[1, 3, 0, 3, 2]], np.float32)})["out"]

    assert actual.tolist() == [[3]]


def test_a_depthwise_layer_of_a_fork_has_one_group_per_channel(tmp_path: Path) -> None:
    body = "convolution_param { num_output: 4 kernel_size: 3 bias_term: false }"
    blobs = {"out": [(4, 1, 3, 3)]}
    fork = Net("fork", layer("DepthwiseConvolution", body), blobs=blobs)
    plain = Net("plain", layer("Convolution", body.replace("}", "group: 4 }")), blobs=blobs)

    actual = run(read(fork, tmp_path), fork.inputs())["out"]

    np.testing.assert_array_equal(actual, run(read(plain, tmp_path), plain.inputs())["out"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.integers(1, 3),
    extra=st.integers(1, 3),
)
def test_max_pooling_beyond_the_image_gives_the_lowest_float(
    size: tuple[int, int], kernel: int, extra: int, tmp_path: Path
) -> None:
    size = (max(size[0], kernel), max(size[1], kernel))
    stride = kernel + extra
    body = f"pooling_param {{ kernel_size: {kernel} stride: {stride} }}"
    net = Net("gaps", layer("Pooling", body), ((1, 2, *size),))
    x = net.inputs()["x"]

    actual = run(read(net, tmp_path), {"x": x})["out"]

    counts = [-(-(n - kernel) // stride) + 1 for n in size]
    lowest = np.finfo(np.float32).min
    padded = np.pad(x, ((0, 0), (0, 0), (0, 20), (0, 20)), constant_values=lowest)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))
    strided = windows[:, :, ::stride, ::stride][:, :, : counts[0], : counts[1]]
    np.testing.assert_array_equal(actual, strided.max((4, 5)))


def test_a_convolution_of_rows_is_one_of_flat_images(tmp_path: Path) -> None:
    body = "convolution_param {{ num_output: 3 {} }}"
    rows = Net("rows", layer("Convolution", body.format("kernel_size: 3 stride: 2 pad: 1")),
               ((1, 2, 9),), {"out": [(3, 2, 3), (3,)]})  # fmt: skip
    geometry = "kernel_h: 1 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 0 pad_w: 1"
    flat = Net("flat", layer("Convolution", body.format(geometry)),
               ((1, 2, 1, 9),), {"out": [(3, 2, 1, 3), (3,)]})  # fmt: skip

    actual = run(read(rows, tmp_path), rows.inputs())["out"]

    expected = run(read(flat, tmp_path), flat.inputs())["out"]
    np.testing.assert_allclose(actual[:, :, None], expected, rtol=1e-6)


def test_random_weights_need_no_file_and_repeat(tmp_path: Path) -> None:
    body = "convolution_param { num_output: 4 kernel_size: 3 }"
    net = Net("random", layer("Convolution", body))
    options = ReadOptions(random_weights=True, seed=3)

    first, second = (run(read(net, tmp_path, options), net.inputs())["out"] for _ in range(2))

    np.testing.assert_array_equal(first, second)
    assert np.abs(first).max() > 0

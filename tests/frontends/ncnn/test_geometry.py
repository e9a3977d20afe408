"""Sliding windows of any geometry: ncnn against onnxruntime on the network read back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from qconvert.errors import ModelFormatError, UnsupportedError
from tests.frontends.ncnn.oracle import (
    assert_same,
    load,
    raw,
    single,
    tagged,
)

if TYPE_CHECKING:
    from qconvert.formats.ncnn_bin import Buffer
    from qconvert.formats.ncnn_param import Param

REFUSALS = (
    "gives a blob of shape",  # a window larger than its input
    "see nothing but padding",
    "an output padding of",
    "the size of the output",
    "resizes to",
    "SAME padding of",
)
SIZES = st.integers(1, 3)
ACTIVATIONS: list[dict[int, Param]] = [
    {},
    {9: 1},
    {9: 2, 10: (0.1,)},
    {9: 3, 10: (-0.5, 0.75)},
    {9: 4},
    {9: 5},
    {9: 6, 10: (0.2, 0.5)},
]


def weights(seed: int, count: int, bias: int) -> list[Buffer]:
    rng = np.random.default_rng(seed)
    made = [tagged(rng.normal(size=count).astype(np.float32))]
    return [*made, raw(rng.normal(size=bias))] if bias else made


@dataclass(frozen=True)
class Trial:
    """One layer over one input."""

    kind: str
    params: dict[int, Param]
    shape: tuple[int, ...]
    buffers: list[Buffer] = field(default_factory=list)


def check(trial: Trial) -> None:
    """Equal results, or a refusal: where nothing fits, ncnn reads outside of its blobs."""
    network = single(trial.kind, trial.params, (trial.shape,))
    refusal = ""
    try:
        load(network, trial.buffers)
    except (ModelFormatError, UnsupportedError) as error:
        refusal = str(error)
    if refusal:
        event("refused")
        assert any(word in refusal for word in REFUSALS), refusal
    else:
        assert_same(network, trial.buffers)


@st.composite
def windows(draw: st.DrawFn) -> dict[int, Param]:
    """Kernel, dilation, stride and padding of a convolution."""
    params: dict[int, Param] = {
        1: draw(st.integers(1, 4)),
        11: draw(st.integers(1, 4)),
        2: draw(SIZES),
        12: draw(SIZES),
        3: draw(SIZES),
        13: draw(SIZES),
    }
    mode = draw(st.sampled_from(["pads", "upper", "lower"]))
    if mode == "pads":
        for key in (4, 14, 15, 16):
            params[key] = draw(st.integers(0, 3))
    else:
        params[4] = -233 if mode == "upper" else -234
    return params


@st.composite
def convolutions(draw: st.DrawFn) -> Trial:
    """Any convolution: groups, bias, activation, border value."""
    params = draw(windows()) | draw(st.sampled_from(ACTIVATIONS))
    groups = draw(st.integers(1, 3))
    inputs, outputs = draw(st.integers(1, 5)), draw(st.integers(1, 5)) * groups
    bias = draw(st.booleans())
    count = outputs * inputs * int(str(params[1])) * int(str(params[11]))
    fill = draw(st.sampled_from([0.0, 0.0, 1.5]))
    params |= {0: outputs, 5: int(bias), 6: count, 7: groups, 18: fill}
    kind = "Convolution" if groups == 1 else "ConvolutionDepthWise"
    shape = (inputs * groups, draw(st.integers(1, 11)), draw(st.integers(1, 11)))
    return Trial(kind, params, shape, weights(count, count, outputs * bias))


@given(convolutions())
def test_convolution(trial: Trial) -> None:
    check(trial)


@given(st.integers(1, 4), SIZES, SIZES, st.integers(0, 3), st.integers(0, 3), st.integers(1, 12))
def test_convolution_1d(k: int, dilation: int, stride: int, left: int, right: int, w: int) -> None:
    params: dict[int, Param] = {0: 3, 1: k, 2: dilation, 3: stride, 4: left, 15: right, 5: 1}

    check(Trial("Convolution1D", params | {6: 6 * k}, (2, w), weights(k, 6 * k, 3)))
    check(Trial("ConvolutionDepthWise1D", params | {6: 3 * k, 7: 3}, (3, w), weights(k, 3 * k, 3)))


@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.integers(3, 5)
)
def test_convolution_3d(k: int, deep: int, stride: int, pad: int, size: int) -> None:
    params: dict[int, Param] = {0: 2, 1: k, 21: deep, 3: stride, 4: pad, 24: 1, 5: 1}
    count = 4 * k * k * deep

    check(Trial("Convolution3D", params | {6: count}, (2, 4, size, 5), weights(k, count, 2)))


@given(st.integers(1, 2), st.integers(1, 3), st.integers(3, 5))
def test_convolution_3d_depthwise(k: int, deep: int, size: int) -> None:
    params: dict[int, Param] = {0: 4, 1: k, 21: deep, 4: 1, 5: 1, 7: 4}
    count = 4 * k * k * deep

    check(
        Trial("ConvolutionDepthWise3D", params | {6: count}, (4, 4, size, 5), weights(k, count, 4))
    )


@st.composite
def deconvolutions(draw: st.DrawFn) -> Trial:
    """Any transposed convolution: groups, activation, output padding, wanted size."""
    params = draw(windows()) | draw(st.sampled_from(ACTIVATIONS))
    groups = draw(st.integers(1, 3))
    inputs, outputs = draw(st.integers(1, 4)), draw(st.integers(1, 4)) * groups
    count = outputs * inputs * int(str(params[1])) * int(str(params[11]))
    grown = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    params |= {0: outputs, 5: 1, 6: count, 7: groups, 18: grown[0], 19: grown[1]}
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    if params[4] in {-233, -234}:
        params |= {20: width, 21: height}
    kind = "Deconvolution" if groups == 1 else "DeconvolutionDepthWise"
    shape = (inputs * groups, height, width)
    return Trial(kind, params, shape, weights(count, count, outputs))


@given(deconvolutions())
def test_deconvolution(trial: Trial) -> None:
    check(trial)


@st.composite
def poolings(draw: st.DrawFn) -> Trial:
    """Any pooling with a window."""
    mode = draw(st.integers(0, 3))
    params: dict[int, Param] = {0: draw(st.integers(0, 1)), 5: mode, 6: draw(st.integers(0, 1))}
    params |= {key: draw(st.integers(1, 4)) for key in (1, 11)}
    params |= {key: draw(SIZES) for key in (2, 12)}
    if mode < 2:
        params |= {key: draw(st.integers(0, 4)) for key in (3, 14, 13, 15)}
    sides = st.integers(1, 11)
    return Trial("Pooling", params, (draw(st.integers(1, 4)), draw(sides), draw(sides)))


@given(poolings())
@settings(max_examples=150)
def test_pooling(trial: Trial) -> None:
    check(trial)


@given(
    st.integers(0, 1),
    st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_adaptive_pooling(kind: int, shape: tuple[int, int, int], size: tuple[int, int]) -> None:
    check(Trial("Pooling", {0: kind, 7: 1, 8: size[1], 18: size[0]}, shape))


@given(st.integers(0, 1), st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 5)))
def test_global_pooling(kind: int, shape: tuple[int, int, int]) -> None:
    check(Trial("Pooling", {0: kind, 4: 1}, shape))


SCALES = st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 2.7, 3.0])


@given(
    st.integers(1, 3),
    st.tuples(SCALES, SCALES),
    st.integers(0, 1),
    st.tuples(st.integers(1, 3), st.integers(4, 9), st.integers(4, 9)),
)
@settings(max_examples=100)
def test_interp_by_scale(
    kind: int, scales: tuple[float, float], corners: int, shape: tuple[int, int, int]
) -> None:
    check(Trial("Interp", {0: kind, 1: scales[0], 2: scales[1], 6: corners}, shape))


@given(
    st.integers(1, 3),
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    st.integers(0, 1),
    st.tuples(st.integers(1, 3), st.integers(4, 9), st.integers(4, 9)),
)
@settings(max_examples=100)
def test_interp_to_size(
    kind: int, size: tuple[int, int], corners: int, shape: tuple[int, int, int]
) -> None:
    assume(not corners or min(size) > 1)  # the step of aligned corners is then 0 / 0

    check(Trial("Interp", {0: kind, 3: size[0], 4: size[1], 6: corners}, shape))


@given(st.integers(1, 3), st.integers(1, 14), st.tuples(st.integers(1, 4), st.integers(4, 9)))
def test_interp_of_a_matrix_resizes_rows(kind: int, width: int, shape: tuple[int, int]) -> None:
    check(Trial("Interp", {0: kind, 3: 7, 4: width}, shape))


def test_interp_of_a_vector_makes_images() -> None:
    check(Trial("Interp", {0: 2, 3: 3, 4: 5}, (4,)))
    check(Trial("Interp", {0: 1, 1: 2.0, 2: 3.0}, (4,)))


def test_interp_to_another_blob_and_by_expression() -> None:
    assert_same(single("Interp", {0: 2, 5: 1}, ((2, 4, 5), (3, 7, 9))))
    assert_same(single("Interp", {0: 1, 9: "*(0w,2),+(0h,1)"}, ((2, 4, 5),)))


DIMS = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@given(DIMS, st.data())
def test_reshape(dims: list[int], data: st.DataObject) -> None:
    left = int(np.prod(dims))
    wanted = []
    for _ in range(data.draw(st.integers(0, 3))):
        wanted.append(data.draw(st.sampled_from([n for n in range(1, left + 1) if left % n == 0])))
        left //= wanted[-1]
    wanted.append(left)
    if data.draw(st.booleans()):
        wanted[data.draw(st.integers(0, len(wanted) - 1))] = -1
    keys = {1: (0,), 2: (0, 1), 3: (0, 1, 2), 4: (0, 1, 11, 2)}[len(wanted)]

    check(Trial("Reshape", dict(zip(keys, reversed(wanted), strict=True)), tuple(dims)))

"""Layers against pjreddie's own library, for what OpenCV does not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.frontends.darknet.nets import Darknet, load, ours, write

if TYPE_CHECKING:
    from pathlib import Path

# The fixture is a process that keeps nothing from one example to the next.
KEEPS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)


@dataclass(frozen=True)
class Case:
    """One network after [net]; `image` is channels, height, width."""

    id: str
    text: str
    image: tuple[int, int, int] = (4, 6, 8)


CONV = "[convolutional]\nfilters={}\nsize={}\nstride={}\npad=1\nactivation=leaky\n"
WIDE = "[convolutional]\nfilters=2\nsize=9\npad=1\nactivation=leaky\n"
P_ACTIVATIONS = [
    "elu",
    "hardtan",
    "leaky",
    "lhtan",
    "linear",
    "loggy",
    "logistic",
    "plse",
    "ramp",
    "relie",
    "relu",
    "selu",
    "stair",
    "tanh",
]
CASES = [
    *(Case(f"activation_{name}", f"[activation]\nactivation={name}\n") for name in P_ACTIVATIONS),
    Case("conv_normalized", "[conv]\nfilters=6\nsize=3\nbatch_normalize=1\nactivation=elu\n"),
    Case("conv_flipped", "[conv]\nfilters=6\nsize=3\nflipped=1\nactivation=linear\n"),
    Case(
        "conv_xnor",
        "[conv]\nfilters=6\nsize=3\npad=1\nxnor=1\nbatch_normalize=1\nactivation=relu\n",
    ),
    Case(
        "conv_without_scales",
        "[conv]\nfilters=3\nbatch_normalize=1\ndontloadscales=1\nactivation=linear\n",
    ),
    Case("connected", "[connected]\noutput=7\nactivation=ramp\n"),
    Case("connected_normalized", "[conn]\noutput=7\nbatch_normalize=1\nactivation=leaky\n"),
    Case("conv_after_connected", "[connected]\noutput=7\n" + CONV.format(3, 1, 1)),
    # Darknet reserves too few bytes for [local]; a convolution before it makes it ask for more.
    Case("local", WIDE + "[local]\nfilters=5\nsize=3\nstride=1\npad=1\nactivation=leaky\n"),
    Case("local_stride", WIDE + "[local]\nfilters=2\nsize=2\nstride=2\nactivation=leaky\n"),
    Case("avgpool_softmax", "[avgpool]\n[softmax]\ngroups=2\ntemperature=2.5\n"),
    Case("softmax_then_cost", "[softmax]\n[cost]\ntype=sse\n"),
    Case("normalization", "[normalization]\nsize=5\nalpha=.3\nbeta=.6\nkappa=2\n", (9, 2, 3)),
    Case("normalization_even", "[lrn]\nsize=4\nalpha=.3\n", (7, 2, 3)),
    Case("normalization_wide", "[lrn]\nsize=9\nalpha=.3\n", (4, 2, 3)),
    Case("logistic", "[logistic]\n"),
    Case("crop", "[crop]\ncrop_height=4\ncrop_width=5\n" + CONV.format(2, 3, 1)),
    Case("crop_noadjust", "[crop]\ncrop_height=3\ncrop_width=8\nnoadjust=1\n"),
    Case("upsample_scaled", "[upsample]\nstride=3\nscale=.5\n"),
    Case("upsample_reverse", "[upsample]\nstride=-2\nscale=.25\n"),
    Case("reorg", "[reorg]\nstride=2\n"),
    Case("reorg_reverse", "[reorg]\nstride=2\nreverse=1\n"),
    Case("reorg_flatten", "[reorg]\nstride=1\nflatten=1\n"),
    Case("reorg_flatten_reverse", "[reorg]\nstride=1\nflatten=1\nreverse=1\n"),
    Case("reorg_extra", "[reorg]\nstride=1\nextra=5\n[connected]\noutput=3\n"),
    Case("route_alias", CONV.format(3, 1, 1) + CONV.format(2, 1, 1) + "[route]\nlayers=0\n"),
    Case("route_of_vectors", "[connected]\noutput=3\n[connected]\noutput=4\n[route]\nlayers=0,1\n"),
    Case(
        "shortcut_weighted_by_alpha_and_beta",
        CONV.format(3, 1, 1)
        + CONV.format(5, 1, 1)
        + "[shortcut]\nfrom=0\nalpha=.5\nbeta=2\nactivation=leaky\n",
    ),
    Case(
        "shortcut_from_a_larger_image",
        CONV.format(3, 1, 1) + CONV.format(2, 3, 2) + "[shortcut]\nfrom=0\n",
    ),
    Case(
        "shortcut_from_a_smaller_image",
        CONV.format(3, 3, 2)
        + "[upsample]\nstride=2\n"
        + CONV.format(5, 1, 1)
        + "[shortcut]\nfrom=0\n",
    ),
    Case(
        "yolo",
        "[conv]\nfilters=14\nactivation=linear\n"
        "[yolo]\nmask=0,2\nanchors=1,2,3,4,5,6\nnum=3\nclasses=2\n",
    ),
    Case(
        "region_softmax",
        "[conv]\nfilters=24\nactivation=linear\n"
        "[region]\nanchors=1,2,3,4,5,6\nnum=3\nclasses=3\nsoftmax=1\n",
    ),
    Case(
        "region_sigmoid",
        "[conv]\nfilters=16\nactivation=linear\n[region]\nanchors=1,2,3,4\nnum=2\nclasses=3\n",
    ),
    Case(
        "region_background",
        "[conv]\nfilters=16\nactivation=linear\n"
        "[region]\nanchors=1,2,3,4\nnum=2\nclasses=3\nsoftmax=1\nbackground=1\n",
    ),
    Case(
        "region_mask",
        "[conv]\nfilters=20\nactivation=linear\n"
        "[region]\nanchors=1,2,3,4\nnum=2\nclasses=3\ncoords=6\nsoftmax=1\n",
    ),
    Case(
        "detection",
        "[connected]\noutput=117\nactivation=linear\n"
        "[detection]\nside=3\nnum=2\nclasses=3\ncoords=4\nsoftmax=1\nsqrt=1\n",
    ),
    Case(
        "detection_plain",
        "[connected]\noutput=117\nactivation=linear\n"
        "[detection]\nside=3\nnum=2\nclasses=3\ncoords=4\n",
    ),
]


def agree(text: str, image: tuple[int, int, int], folder: Path, darknet: Darknet) -> None:
    """Check that our output and the library's are the same numbers for a random input."""
    rng = np.random.default_rng(len(text))
    channels, height, width = image
    header = f"[net]\nbatch=1\nchannels={channels}\nheight={height}\nwidth={width}\n"
    source = write(folder, header + text, rng)
    x = rng.uniform(-6, 6, (1, *image)).astype(np.float32)

    (actual,) = ours(source, x, "pjreddie").values()
    expected = darknet(source, x, actual.size)

    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual.ravel() / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_layers_agree_with_darknet(case: Case, darknet: Darknet, tmp_path: Path) -> None:
    agree(case.text, case.image, tmp_path, darknet)


@given(data=st.data())
@KEEPS
def test_geometry_agrees_with_darknet(
    data: st.DataObject, darknet: Darknet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    size = data.draw(st.integers(1, 5))
    layers = [
        (
            # Without a GPU this Darknet forgets the stride of 1 x 1 convolutions.
            f"[convolutional]\nfilters=2\nsize={size + 1}\nstride={data.draw(st.integers(1, 3))}\n"
            f"pad={data.draw(st.integers(0, 1))}\nactivation=linear\n"
        ),
        f"[maxpool]\nsize={size}\nstride={data.draw(st.integers(1, 3))}\n",
        f"[maxpool]\nsize={size}\nstride=2\npadding={data.draw(st.integers(0, size - 1))}\n",
        WIDE + f"[local]\nfilters=2\nsize=3\nstride={data.draw(st.integers(1, 2))}\npad=1\n",
        f"[connected]\noutput={size}\n",
    ]
    channels, height, width = (data.draw(st.integers(low, 12)) for low in (1, 5, 5))
    layer = data.draw(st.sampled_from(layers))
    agree(layer, (channels, height, width), tmp_path_factory.mktemp("net"), darknet)


def test_old_header_has_a_short_counter_and_transposed_matrices(
    darknet: Darknet, tmp_path: Path, rng: np.random.Generator
) -> None:
    text = "[net]\nbatch=1\nchannels=2\nheight=3\nwidth=2\n[connected]\noutput=5\n"
    source = write(tmp_path, text, rng)
    assert source.weights is not None
    numbers = source.weights.read_bytes()[20:]
    source.weights.write_bytes(np.array([1001, 0, 0, 7], dtype="<i4").tobytes() + numbers)
    x = rng.uniform(-1, 1, (1, 2, 3, 2)).astype(np.float32)

    (actual,) = ours(source, x).values()

    np.testing.assert_allclose(actual.ravel(), darknet(source, x, 5), atol=1e-6)


def test_formulas_of_normalization_differ_as_they_should(
    darknet: Darknet, tmp_path: Path, rng: np.random.Generator
) -> None:
    text = (
        "[net]\nbatch=1\nchannels=1\nheight=4\nwidth=4\n"
        "[conv]\nfilters=2\nbatch_normalize=1\nactivation=linear\n"
    )
    source = write(tmp_path, text, rng)
    assert source.weights is not None
    numbers = np.frombuffer(source.weights.read_bytes()[20:], np.float32).copy()
    numbers[6:8] = 1e-7, -1e-30  # a filter that hardly ever moved, and rounding below zero
    source.weights.write_bytes(source.weights.read_bytes()[:20] + numbers.tobytes())
    x = rng.uniform(-1, 1, (1, 1, 4, 4)).astype(np.float32)

    (pjreddie,) = ours(source, x, "pjreddie").values()
    (alexeyab,) = ours(source, x, "alexeyab").values()

    expected = darknet(source, x, pjreddie.size)
    np.testing.assert_allclose(pjreddie.ravel()[:16], expected[:16], rtol=1e-4)
    factor = (np.sqrt(1e-7) + 1e-6) / np.sqrt(1e-7 + 1e-5)
    beta = numbers[0]
    np.testing.assert_allclose((pjreddie - beta)[0, 0] * factor, (alexeyab - beta)[0, 0], rtol=1e-3)


def test_batchnorm_is_a_normalized_convolution_with_an_identity(
    darknet: Darknet, tmp_path: Path, rng: np.random.Generator
) -> None:
    # pjreddie's [batchnorm] cannot run (it copies its input to an array it never reserves).
    header = "[net]\nbatch=1\nchannels=2\nheight=3\nwidth=2\n"
    source = write(tmp_path, header + "[batchnorm]\n", rng)
    x = rng.uniform(-1, 1, (1, 2, 3, 2)).astype(np.float32)
    (actual,) = ours(source, x, "pjreddie").values()

    assert source.weights is not None
    source.model.write_text(
        header + "[convolutional]\nfilters=2\nbatch_normalize=1\nactivation=linear\n"
    )
    with source.weights.open("ab") as file:
        file.write(np.eye(2, dtype=np.float32).tobytes())
    np.testing.assert_allclose(actual.ravel(), darknet(source, x, 12), atol=1e-5)


def test_batchnorm_biases_are_recognized_by_the_size_of_the_file(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    text = "[net]\nbatch=1\nchannels=2\nheight=3\nwidth=2\n[batchnorm]\n"
    with_biases = write(tmp_path, text, rng)
    biased = load(with_biases).graph.initializers["batchnorm_0.bn_bias"].const_value
    assert biased is not None
    assert biased.numpy().any()

    without = write(tmp_path, text, rng, biased=False)
    plain = load(without).graph.initializers["batchnorm_0.bn_bias"].const_value
    assert plain is not None
    assert not plain.numpy().any()

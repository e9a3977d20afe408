"""Generated layers against `cv2.dnn.readNetFromDarknet`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qconvert.graph import shape_of
from tests.frontends.darknet.nets import load, opencv, ours, write

if TYPE_CHECKING:
    from qconvert.quant import F32

ACTIVATIONS = ("linear", "leaky", "relu", "logistic", "tanh", "swish", "mish")


def agree(text: str, seed: int) -> None:
    """Check that our last layer and OpenCV's give the same numbers for a random input."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder), text, rng)
        shape = shape_of(load(source).graph.inputs[0])
        x = rng.uniform(-1, 1, shape).astype(np.float32)
        expected = opencv(source, x)
        (actual,) = ours(source, x).values()
    close(actual, expected.reshape(actual.shape))


def close(actual: F32, expected: F32) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual / scale, expected / scale, atol=2e-5)


def net(channels: int, height: int, width: int) -> str:
    return f"[net]\nbatch=1\nchannels={channels}\nheight={height}\nwidth={width}\n"


@st.composite
def convolutions(draw: st.DrawFn) -> str:
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    size = draw(st.integers(1, 5))
    lines = [
        net(groups * draw(st.integers(1, 3)), draw(st.integers(5, 13)), draw(st.integers(5, 13))),
        "[convolutional]",
        f"filters={groups * draw(st.integers(1, 4))}",
        f"size={size}",
        f"stride={draw(st.integers(1, 3))}",
        f"groups={groups}",
        draw(st.sampled_from(("pad=0", "pad=1", "padding=1", "padding=2", "pad=0\npadding=1"))),
        f"batch_normalize={draw(st.integers(0, 1))}",
        f"activation={draw(st.sampled_from(ACTIVATIONS))}",
    ]
    return "\n".join(lines)


@given(convolutions(), st.integers(0, 1000))
def test_convolutions_agree(text: str, seed: int) -> None:
    agree(text, seed)


@st.composite
def pools(draw: st.DrawFn) -> str:
    size = draw(st.integers(1, 6))
    lines = [
        net(2, draw(st.integers(6, 15)), draw(st.integers(6, 15))),
        "[maxpool]",
        f"size={size}",
        f"stride={draw(st.integers(1, 3))}",
    ]
    if draw(st.booleans()):
        lines.append(f"padding={draw(st.integers(0, size - 1))}")
    return "\n".join(lines)


@given(pools(), st.integers(0, 1000))
def test_pooling_agrees(text: str, seed: int) -> None:
    agree(text, seed)


@st.composite
def joins(draw: st.DrawFn) -> str:
    groups = draw(st.sampled_from((1, 2)))
    kind = draw(st.sampled_from(("concat", "group", "add", "add_uneven")))
    first = 2 * draw(st.integers(1, 4))
    second = first if kind == "add" else 2 * draw(st.integers(1, 4))
    conv = "[convolutional]\nsize={size}\npad=1\nfilters={filters}\nactivation=leaky"
    tail = {
        "concat": "[route]\nlayers=-1,0",
        "group": f"[route]\nlayers=-1\ngroups={groups}\ngroup_id={groups - 1}",
        "add": f"[shortcut]\nfrom=-2\nactivation={draw(st.sampled_from(('linear', 'leaky')))}",
        "add_uneven": "[shortcut]\nfrom=0\nactivation=linear",
    }[kind]
    return "\n".join(
        [
            net(3, draw(st.integers(4, 9)), draw(st.integers(4, 9))),
            conv.format(size=3, filters=first),
            conv.format(size=1, filters=second),
            tail,
            conv.format(size=1, filters=3),
        ]
    )


@given(joins(), st.integers(0, 1000))
def test_joins_agree(text: str, seed: int) -> None:
    agree(text, seed)


@given(st.integers(1, 4), st.integers(3, 8), st.integers(3, 8), st.integers(1, 4))
def test_upsampling_agrees(channels: int, height: int, width: int, stride: int) -> None:
    agree(net(channels, height, width) + f"[upsample]\nstride={stride}", seed=stride)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(2, 3))
def test_reorganization_agrees(channels: int, height: int, width: int, stride: int) -> None:
    text = net(channels * stride**2, height * stride, width * stride)
    agree(text + f"[reorg]\nstride={stride}", seed=stride)


@given(st.integers(2, 12), st.integers(3, 9), st.integers(0, 1000))
def test_classifiers_agree(classes: int, side: int, seed: int) -> None:
    text = net(3, side, side + 1) + (
        "[convolutional]\nfilters=6\nsize=3\npad=1\nbatch_normalize=1\nactivation=leaky\n"
        f"[convolutional]\nfilters={classes}\nsize=1\nactivation=linear\n"
        "[dropout]\nprobability=.5\n[avgpool]\n[softmax]\ngroups=1\n"
    )
    agree(text, seed)


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(ACTIVATIONS), st.integers(0, 1000))
def test_connected_layers_agree(outputs: int, side: int, activation: str, seed: int) -> None:
    text = net(2, side, 3) + f"[connected]\noutput={outputs}\nactivation={activation}\n"
    agree(text, seed)


@given(st.integers(1, 6), st.integers(2, 8), st.integers(0, 1000))
def test_attention_agrees(channels: int, side: int, seed: int) -> None:
    conv = f"[convolutional]\nfilters={channels}\nsize=1\nactivation=logistic\n"
    squeeze = "[avgpool]\n" + conv + "[scale_channels]\nfrom=-3\n"
    agree(net(3, side, side) + conv + squeeze + conv + "[sam]\nfrom=-2\n", seed)

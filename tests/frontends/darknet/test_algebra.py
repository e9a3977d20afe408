"""What no installed runtime reads: AlexeyAB's extensions, by properties they must have."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.source import Source
from tests.frontends.darknet.nets import HEADER, opencv, ours, write

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from qconvert.quant import F32

SIDE = 9
NET = f"[net]\nbatch=1\nchannels=4\nheight={SIDE}\nwidth={SIDE}\n"


def files(folder: Path, text: str, *arrays: npt.NDArray[np.floating]) -> Source:
    """A network with the weights given."""
    source = Source(folder / "net.cfg", folder / "net.weights")
    assert source.weights is not None
    source.model.write_text(NET + text)
    numbers = b"".join(np.asarray(array, dtype="<f4").tobytes() for array in arrays)
    source.weights.write_bytes(HEADER + numbers)
    return source


def run(source: Source, x: F32) -> F32:
    (result,) = ours(source, x).values()
    return result


@pytest.fixture
def x(rng: np.random.Generator) -> F32:
    return rng.uniform(-3, 3, (1, 4, SIDE, SIDE)).astype(np.float32)


@pytest.mark.parametrize("dilation", [2, 3])
def test_dilation_is_a_kernel_with_zeros_between(
    dilation: int, x: F32, rng: np.random.Generator, tmp_path: Path
) -> None:
    bias, kernel = rng.normal(size=3), rng.normal(size=(3, 4, 3, 3))
    wide = np.zeros((3, 4, 2 * dilation + 1, 2 * dilation + 1))
    wide[:, :, ::dilation, ::dilation] = kernel
    text = "[convolutional]\nfilters=3\nsize={}\npad=1\nactivation=linear\n"

    actual = run(files(tmp_path, text.format(3) + f"dilation={dilation}", bias, kernel), x)

    expected = opencv(files(tmp_path, text.format(2 * dilation + 1), bias, wide), x)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_uneven_strides_pick_rows_and_columns(
    x: F32, rng: np.random.Generator, tmp_path: Path
) -> None:
    numbers = rng.normal(size=3 + 3 * 4 * 9)
    text = "[convolutional]\nfilters=3\nsize=3\npad=1\nactivation=linear\n"

    actual = run(files(tmp_path, text + "stride_x=3\nstride_y=2\n", numbers), x)

    expected = opencv(files(tmp_path, text, numbers), x)[:, :, ::2, ::3]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_shared_layers_read_the_weights_once(
    x: F32, rng: np.random.Generator, tmp_path: Path
) -> None:
    layer = "[convolutional]\nfilters=4\nsize=3\npad=1\nactivation=leaky\nbatch_normalize=1\n"
    numbers = rng.uniform(0.1, 0.3, 16 + 4 * 4 * 9)

    actual = run(files(tmp_path, layer + layer + "share_index=0\n", numbers), x)

    expected = opencv(files(tmp_path, layer + layer, numbers, numbers), x)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_pooling_along_the_channels_takes_every_nth(x: F32, tmp_path: Path) -> None:
    actual = run(files(tmp_path, "[maxpool]\nmaxpool_depth=1\nout_channels=2\n"), x)

    np.testing.assert_array_equal(actual, np.maximum(x[:, :2], x[:, 2:]))


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 5))
def test_local_average_counts_the_pixels_that_exist(size: int, stride: int, padding: int) -> None:
    if padding >= 2 * size - 1:
        return
    x = np.random.default_rng(size).uniform(-3, 3, (1, 4, SIDE, SIDE)).astype(np.float32)
    text = f"[local_avgpool]\nsize={size}\nstride={stride}\npadding={padding}\n"
    with tempfile.TemporaryDirectory() as folder:
        actual = run(files(Path(folder), text), x)

    def window(index: int) -> slice:
        begin = index * stride - padding // 2
        return slice(max(begin, 0), begin + size)

    expected = np.array(
        [
            [x[0, :, window(i), window(j)].mean(axis=(1, 2)) for j in range(actual.shape[3])]
            for i in range(actual.shape[2])
        ]
    ).transpose(2, 0, 1)
    assert actual.shape[2] == (SIDE + padding - size) // stride + 1
    np.testing.assert_allclose(actual[0], expected, atol=1e-5)


RULES: dict[str, Callable[[F32], F32]] = {
    "none": lambda w: w,
    "relu": lambda w: np.maximum(w, 0) / (np.maximum(w, 0).sum(0) + 1e-4),
    "softmax": lambda w: np.exp(w - w.max(0)) / (np.exp(w - w.max(0)).sum(0) + 1e-4),
}


@pytest.mark.parametrize("kind", ["per_feature", "per_channel"])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_weighted_shortcuts_are_weighted_sums(
    kind: str, rule: str, x: F32, rng: np.random.Generator, tmp_path: Path
) -> None:
    weights = rng.normal(size=(3, 4 if kind == "per_channel" else 1)).astype(np.float32)
    text = (
        "[activation]\nactivation=relu\n[activation]\nactivation=logistic\n"
        "[activation]\nactivation=tanh\n"
        f"[shortcut]\nfrom=-2,0\nweights_type={kind}\nweights_normalization={rule}\n"
    )

    actual = run(files(tmp_path, text, weights), x)

    relu = np.maximum(x, 0)
    logistic = 1 / (1 + np.exp(-relu))
    factors = RULES[rule](weights)[:, None, :, None, None]
    expected = factors[0] * np.tanh(logistic) + factors[1] * logistic + factors[2] * relu
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_implicit_numbers_scale_channels(x: F32, rng: np.random.Generator, tmp_path: Path) -> None:
    numbers = rng.normal(size=4)
    text = "[activation]\nactivation=relu\n[implicit]\nfilters=4\n[scale_channels]\nfrom=0\n"

    actual = run(files(tmp_path, text, numbers), x)

    np.testing.assert_allclose(
        actual, np.maximum(x, 0) * numbers.reshape(1, 4, 1, 1), rtol=1e-5, atol=1e-6
    )


def test_reorg3d_undoes_itself(x: F32, tmp_path: Path) -> None:
    text = "[crop]\ncrop_height=8\ncrop_width=6\nnoadjust=1\n[reorg3d]\nstride=2\n"

    there = run(files(tmp_path, text), x)
    back = run(files(tmp_path, text + "[reorg3d]\nstride=2\nreverse=1\n"), x)

    middle = x[:, :, :8, 1:7]
    np.testing.assert_array_equal(back, middle)
    np.testing.assert_array_equal(there[:, :4], middle[:, :, ::2, ::2])
    np.testing.assert_array_equal(there[:, 4:8], middle[:, :, ::2, 1::2])


def test_reorg_and_its_reverse_cancel(tmp_path: Path, rng: np.random.Generator) -> None:
    source = write(
        tmp_path,
        "[net]\nbatch=1\nchannels=8\nheight=4\nwidth=6\n[reorg]\nstride=2\n[reorg]\nreverse=1\n"
        "stride=2\n",
        rng,
    )
    x = rng.normal(size=(1, 8, 4, 6)).astype(np.float32)

    (actual,) = ours(source, x).values()

    # The one writes what it has read as [C/4, 2H, 2W] down as [4C, H/2, W/2]; the other reads that.
    assert sorted(actual.ravel()) == sorted(x.ravel())


def channels_softmax(x: F32) -> F32:
    result: F32 = np.exp(x) / (np.exp(x).sum(1, keepdims=True) + 1e-4)
    return result


FORMULAS: dict[str, Callable[[F32], F32]] = {
    "relu6": lambda x: np.clip(x, 0, 6),
    "revleaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(0.797885 * x + 0.035677 * x**3)),
    "hard_mish": lambda x: np.where(x > 0, x, np.where(x > -2, x * x / 2 + x, 0)),
    "normalize_channels": lambda x: (
        np.maximum(x, 0) / (np.maximum(x, 0).sum(1, keepdims=True) + 1e-4)
    ),
    "normalize_channels_softmax": channels_softmax,
    "normalize_channels_softmax_maxval": lambda x: channels_softmax(x - x.max(1, keepdims=True)),
}


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_activations_are_the_formulas_of_the_source(name: str, x: F32, tmp_path: Path) -> None:
    actual = run(files(tmp_path, f"[activation]\nactivation={name}\n"), x)

    np.testing.assert_allclose(actual, FORMULAS[name](x), atol=1e-5)

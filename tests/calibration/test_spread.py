"""The figures by which a tensor is too wide for its codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from qconvert.calibration.settings import Settings
from qconvert.calibration.spread import LEAST_SNR, MOST_LOST, Spread, of_activations, of_weights
from qconvert.dataset.samples import Sample
from qconvert.passes.planning import plan
from qconvert.plan import OpRule, Policy, Scheme
from qconvert.progress import Quiet
from qconvert.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTHS = frozenset({*range(2, 9), 16})
POLICY = Policy("test", {"Conv": OpRule("Conv", "compute", "channel")}, WIDTHS, WIDTHS)


@pytest.fixture
def measure() -> Callable[..., tuple[Spread, Spread]]:
    """The spread of the weight [4, 4, 1, 1] and of the input of a convolution."""

    def run(
        x: np.ndarray, weight: np.ndarray | None = None, bits: int = 8
    ) -> tuple[Spread, Spread]:
        held = np.eye(4).reshape(4, 4, 1, 1) if weight is None else weight
        shape = ", ".join(map(str, x.shape))
        model = ir.from_onnx_text(
            f"""<ir_version: 10, opset_import: ["" : 21]>
            g (float[{shape}] x) => (float[{shape}] y) {{ [conv] y = Conv (x, w) }}""",
            [ir.tensor(held.astype(np.float32), name="w")],
        )
        common.ShapeInferencePass()(model)
        layout = plan(model, POLICY, Scheme(bits, bits), Report())
        data = [Sample("x[0]", {"x": x.astype(np.float32)})]
        settings = Settings(threads=1)
        (found,) = of_activations(model, layout, data, settings, Quiet())  # type: ignore[arg-type] # a list will do
        (other,) = of_weights(model, layout)
        return found, other

    return run


def plain_snr(x: np.ndarray, bits: int) -> float:
    """The best signal-to-noise ratio over many symmetric scales, by trying."""
    top = 2 ** (bits - 1) - 1
    steps = np.abs(x).max() * np.geomspace(0.02, 1, 300) / top
    errors = [np.square(x - s * np.clip(np.rint(x / s), -top, top)).sum() for s in steps]
    return float(10 * np.log10(np.square(x).sum() / min(errors)))


@pytest.mark.parametrize("bits", [8, 6, 4], ids=str)
@pytest.mark.parametrize("kind", ["normal", "laplace", "half normal"])
def test_the_ratio_is_that_of_the_best_scale(
    kind: str, bits: int, measure: Callable[..., tuple[Spread, Spread]], rng: np.random.Generator
) -> None:
    x = rng.laplace(size=(1, 4, 64, 64)) if kind == "laplace" else rng.normal(size=(1, 4, 64, 64))
    x = np.maximum(x, 0) if kind == "half normal" else x

    found, _ = measure(x, bits=bits)

    assert found.snr_db is not None
    assert found.snr_db == pytest.approx(plain_snr(x, bits), abs=0.3)
    assert found.layers == ("conv",)
    assert found.too_wide == (found.snr_db < LEAST_SNR)
    assert not found.too_wide or bits < 6


def test_a_few_large_values_hide_the_small_ones_from_the_ratio(
    measure: Callable[..., tuple[Spread, Spread]], rng: np.random.Generator
) -> None:
    x = rng.normal(size=(1, 4, 32, 32))
    x[0, 0] *= 3000  # one channel has all the energy

    found, _ = measure(x)

    assert found.snr_db is not None
    assert found.snr_db > LEAST_SNR
    assert found.lost == pytest.approx(0.75, abs=0.02)
    assert found.lost > MOST_LOST
    assert found.too_wide


def test_sixteen_bits_fit_what_eight_do_not(
    measure: Callable[..., tuple[Spread, Spread]], rng: np.random.Generator
) -> None:
    x = rng.normal(size=(1, 4, 32, 32)) * np.exp(3 * rng.normal(size=(1, 4, 32, 32)))

    assert measure(x, bits=8)[0].too_wide
    assert not measure(x, bits=16)[0].too_wide


def test_outliers_are_told_by_their_ratio(
    measure: Callable[..., tuple[Spread, Spread]], rng: np.random.Generator
) -> None:
    x = rng.uniform(-1, 1, size=(1, 4, 64, 64))
    x[0, 0, 0, 0] = 100

    assert measure(x)[0].outliers == pytest.approx(100, rel=0.05)


def test_a_tensor_of_zeros_is_not_too_wide(
    measure: Callable[..., tuple[Spread, Spread]],
) -> None:
    found, weight = measure(np.zeros((1, 4, 8, 8)), np.zeros((4, 4, 1, 1)))

    assert (found.snr_db, weight.snr_db) == (None, None)
    assert not found.too_wide
    assert not weight.too_wide


def test_weights_are_measured_with_their_scales(
    measure: Callable[..., tuple[Spread, Spread]], rng: np.random.Generator
) -> None:
    channels = np.array([1e-3, 1e-3, 1e-3, 1000]).reshape(4, 1, 1, 1)
    even = rng.normal(size=(4, 4, 1, 1)) * channels
    mixed = rng.normal(size=(4, 4, 1, 1)) * channels.reshape(1, 4, 1, 1)

    assert not measure(np.ones((1, 4, 8, 8)), even)[1].too_wide
    assert measure(np.ones((1, 4, 8, 8)), mixed)[1].too_wide

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pytest

from qconvert.calibration.easyquant import scratch
from qconvert.calibration.settings import Settings
from qconvert.plan import Scheme
from tests.calibration.easyquant.conftest import SETTINGS, policy

if TYPE_CHECKING:
    from qconvert.quant import F32
    from tests.calibration.easyquant.conftest import Build, Case

CHAIN = (
    "[a] h = Conv<pads = [1, 1, 1, 1]>(x, w, b) [r] i = Relu(h) [m] j = MaxPool<kernel_shape ="
    "[2, 2], strides = [2, 2]>(i) [c] k = Conv(j, v) [s] l = LeakyRelu(k)"
    "[f] o = Flatten(l) [g] y = Gemm<transB = 1>(o, u, d)"
)
FIRE = (
    "[s] h = Conv(x, w, b) [r] i = Relu(h) [e] j = Conv(i, v)"
    "[t] k = Conv<pads = [1, 1, 1, 1]>(i, u) [c] l = Concat<axis = 1>(j, k) [q] m = Relu(l)"
    "[d] y = Conv<group = 12>(m, z)"
)
BITS = [8, 6, 4, 2]
Mode: TypeAlias = Literal["gram", "paper"]


def _weights(rng: np.random.Generator, **shapes: tuple[int, ...]) -> dict[str, F32]:
    return {name: rng.laplace(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _chain(case: Build, rng: np.random.Generator, bits: int = 6, **more: object) -> Case:
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "v": (6, 8, 2, 2), "u": (5, 54), "d": (5,)}
    scheme = more.pop("scheme", Scheme(weight_bits=bits, activation_bits=bits))
    return case(CHAIN, scheme=scheme, y="float[N, M] y", weights=_weights(rng, **shapes), **more)  # type: ignore[arg-type]


def _fire(case: Build, rng: np.random.Generator, **more: object) -> Case:
    shapes = {
        "w": (4, 3, 1, 1),
        "b": (4,),
        "v": (5, 4, 1, 1),
        "u": (7, 4, 3, 3),
        "z": (12, 1, 3, 3),
    }
    return case(FIRE, weights=_weights(rng, **shapes), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["gram", "paper"])
@pytest.mark.parametrize("bits", BITS)
def test_the_network_is_never_further_from_float_than_at_the_start(
    bits: int, mode: Mode, case: Build, rng: np.random.Generator
) -> None:
    settings = replace(SETTINGS, eq_mode=mode)
    built = _chain(case, rng, bits, settings=settings)

    found = built.search()

    assert built.cosine(found.encodings) >= built.cosine(built.start) - 1e-6
    assert [row.name for row in found.layers] == ["a", "c", "g"]
    for row in found.layers:
        assert row.cosine_before is not None
        assert row.cosine_after is not None
        assert row.cosine_after >= row.cosine_before - 1e-9


def test_a_search_finds_better_scales(case: Build, rng: np.random.Generator) -> None:
    built = _chain(case, rng, 4)

    found = built.search()

    assert 1 - built.cosine(found.encodings) < 0.9 * (1 - built.cosine(built.start))


def test_the_same_seed_gives_the_same_scales(case: Build, rng: np.random.Generator) -> None:
    built = _fire(case, rng)

    first, second = built.search().encodings, built.search().encodings

    for name, params in first.activations.items():
        assert params.scale == second.activations[name].scale
    for name, params in first.weights.items():
        np.testing.assert_array_equal(params.scale, second.weights[name].scale)


def test_layers_that_read_one_value_share_its_scale(case: Build, rng: np.random.Generator) -> None:
    built = _fire(case, rng)

    found = built.search()

    scales = {row.name: row.input_scale for row in found.layers}
    assert scales["e"] == scales["t"]
    assert set(found.encodings.activations) == {"x", "i", "m"}


def test_a_fixed_scale_stays(case: Build, rng: np.random.Generator) -> None:
    built = _chain(case, rng, scheme=Scheme(weight_bits=5, input_scales={"x": 0.0078125}))

    found = built.search()

    assert float(found.encodings.activations["x"].scale) == pytest.approx(0.0078125)


def test_tied_values_get_one_scale(case: Build, rng: np.random.Generator) -> None:
    built = _fire(case, rng, target=policy(graph=True))
    assert built.plan.ties

    found = built.search()

    for group in built.plan.ties:
        assert len({float(found.encodings.activations[name].scale) for name in group}) == 1
    assert built.cosine(found.encodings) >= built.cosine(built.start) - 1e-6


@pytest.mark.parametrize("granularity", ["group", "tensor"])
def test_scales_are_as_coarse_as_the_target_wants(
    granularity: str, case: Build, rng: np.random.Generator
) -> None:
    body = "[a] h = Conv<group = 2>(x, w) [r] i = Relu(h) [c] y = ConvTranspose<group = 2>(i, v)"
    weights = _weights(rng, w=(6, 2, 3, 3), v=(6, 2, 2, 2))
    target = policy(granularity)  # type: ignore[arg-type]
    built = case(body, weights=weights, target=target, x=(1, 4, 6, 6))

    found = built.search().encodings.weights["w"].scale

    assert len(set(found.ravel().tolist())) == (2 if granularity == "group" else 1)


@pytest.mark.parametrize("unsigned", [False, True])
def test_zero_points_are_searched_with_the_scale(
    unsigned: bool, case: Build, rng: np.random.Generator
) -> None:
    scheme = Scheme(activation_bits=4, asymmetric=True, unsigned=unsigned)
    built = _chain(case, rng, scheme=scheme)

    found = built.search()

    assert any(params.zero_point != 0 for params in found.encodings.activations.values())
    assert 1 - built.cosine(found.encodings) < 0.95 * (1 - built.cosine(built.start))


@pytest.mark.parametrize("mode", ["gram", "paper"])
def test_dead_channels_and_dead_values_have_scales(
    mode: Mode, case: Build, rng: np.random.Generator
) -> None:
    weights = _weights(rng, w=(4, 3, 1, 1), v=(3, 4, 1, 1))
    weights["w"][1] = 0
    weights["v"][2] = 0
    weights["b"] = np.full(4, -1000, np.float32)  # nothing passes the Relu
    body = "[a] h = Conv(x, w, b) [r] i = Relu(h) [c] y = Conv(i, v)"
    built = case(body, weights=weights, settings=replace(SETTINGS, eq_mode=mode))

    found = built.search()

    for params in (*found.encodings.weights.values(), *found.encodings.activations.values()):
        assert np.isfinite(params.scale).all()
        assert (params.scale > 0).all()
    assert all(row.cosine_after is not None for row in found.layers)


def test_activations_beyond_the_limit_live_on_disk(
    case: Build, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = _fire(case, rng)
    held = built.search().encodings
    monkeypatch.setattr(scratch.Scratch.__init__, "__defaults__", (0,))

    mapped = built.search().encodings

    for name, params in held.activations.items():
        assert params.scale == mapped.activations[name].scale


def test_a_weight_that_two_layers_share_has_one_scale(
    case: Build, rng: np.random.Generator
) -> None:
    body = "[a] h = Conv(x, w) [r] i = Relu(h) [c] y = Conv(i, w)"
    built = case(body, weights=_weights(rng, w=(3, 3, 1, 1)), settings=Settings(threads=1))

    found = built.search()

    assert found.layers[0].weight_scale == found.layers[1].weight_scale
    assert built.cosine(found.encodings) >= built.cosine(built.start) - 1e-6

"""Which release of ncnn an artifact needs, said and held to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from qconvert.backends.ncnn.versions import OLDEST, release_of
from qconvert.errors import UnsupportedError, UsageError
from tests.backends.graphs import model_of
from tests.backends.ncnn.support import deploy


@dataclass(frozen=True)
class Case:
    id: str
    body: str
    release: str
    because: str = ""


CASES = [
    Case("plain", "y = Relu(x)", OLDEST),
    Case("sign_by_its_parts", "y = Sign(x)", OLDEST),
    Case("round", "y = Round(x)", "20230816", "UnaryOp round"),
    Case("erf", "y = Erf(x)", "20231027", "Erf"),
    Case("the_newest_counts", "r = Round(x) y = Celu(r)", "20231027", "CELU"),
    Case("broadcast", "m = GlobalMaxPool(x) y = Sub(x, m)", "20230816", "BinaryOp on two shapes"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_oldest_release_is_told(case: Case) -> None:
    model = model_of(f"g (float[1, 3, 4, 4] x) => (float[] y) {{ {case.body} }}")
    feed = {"x": np.ones((1, 3, 4, 4), np.float32)}

    oldest = deploy(model, feed).written.extra["oldest_ncnn"]

    assert oldest["release"] == case.release
    assert list(oldest["because"]) == ([case.because] if case.because else [])


def test_what_an_old_release_lacks_is_refused_all_at_once() -> None:
    model = model_of("g (float[1, 4] x) => (float[] y) { r = Round(x) e = Erf(r) y = Celu(e) }")
    feed = {"x": np.ones((1, 4), np.float32)}

    with pytest.raises(UnsupportedError) as error:
        deploy(model, feed, options={"ncnn_version": "20230816"})

    assert len(error.value.problems) == 2
    assert "ncnn 20230816" in error.value.what
    assert "since 20231027" in error.value.why
    deploy(model, feed, options={"ncnn_version": "1.0.20240102"})


def test_the_sign_of_a_number_is_exact() -> None:
    x = np.array([[0.0, -0.0, 1e-37, -1e-37, 3e38, -3e38, 0.5, -2.0]], np.float32)
    model = model_of("g (float[1, 8] x) => (float[] y) { y = Sign(x) }")

    np.testing.assert_array_equal(deploy(model, {"x": x}).outputs["y"], np.sign(x))


@pytest.mark.parametrize("text", ["", "1.0", "newest", "20221128", "2024010", 20240102.5])
def test_what_is_no_release_is_refused(text: object) -> None:
    with pytest.raises(UsageError):
        release_of(text)

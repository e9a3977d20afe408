from __future__ import annotations

import pytest

from qconvert.errors import VerificationError
from qconvert.verification.metrics import Figures
from qconvert.verification.tolerance import FLOAT, SIMULATION, require_cosine, require_exact
from qconvert.verification.verify import Verification


def measured(**outputs: Figures) -> Verification:
    return Verification("ncnn 1.0", 3, outputs)


def test_enough_is_enough() -> None:
    good = measured(prob=Figures(0.99995, 40.0, 0.01))

    require_cosine(good, FLOAT, against="the float model")
    require_cosine(good, SIMULATION, against="the simulation")


@pytest.mark.parametrize("cosine", [0.9999, 0.5, -1.0, None])
def test_an_output_that_falls_short_is_named_with_its_figures(cosine: float | None) -> None:
    bad = measured(prob=Figures(cosine, None, 0.25), fine=Figures(1.0, 90.0, 0.0))

    with pytest.raises(VerificationError) as caught:
        require_cosine(bad, FLOAT, against="the float model", fix="report it")

    text = str(caught.value)
    assert "'prob'" in text
    assert "'fine'" not in text
    assert "0.9999" in text
    assert "max abs error 0.25" in text
    assert "ncnn 1.0" in text
    assert caught.value.exit_code == 7


def test_exact_means_exact() -> None:
    require_exact(measured(y=Figures(1.0, None, 0.0)), against="the integer model")
    for worst in (1e-9, None):
        with pytest.raises(VerificationError, match="3 samples"):
            require_exact(measured(y=Figures(1.0, None, worst)), against="the integer model")

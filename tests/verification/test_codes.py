"""Judging an artifact by codes instead of cosines."""

from __future__ import annotations

import pytest

from qconvert.errors import VerificationError
from qconvert.verification.stepwise import Steps
from qconvert.verification.tolerance import require_steps


def test_one_code_is_allowed_however_large_it_is() -> None:
    steps = Steps(3, "conv1", 0.97, codes=100, differing=9, largest=1, furthest="conv1")

    require_steps(steps, 0.999, samples=4, runtime="the executor", largest=1)


def test_two_codes_are_refused_by_name() -> None:
    steps = Steps(3, "conv1", 0.99999, codes=100, differing=1, largest=2, furthest="fc7")

    with pytest.raises(VerificationError, match="4 samples") as caught:
        require_steps(steps, 0.999, samples=4, runtime="the executor", largest=1)

    assert "'fc7'" in caught.value.at
    assert "measured 2" in caught.value.why

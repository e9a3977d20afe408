from __future__ import annotations

import json
import math

import numpy as np
import pytest

from qconvert.errors import CalibrationError, UsageError
from qconvert.verification.evaluate import evaluate
from tests.verification.stubs import Function, Listener

IDENTITY = Function(lambda inputs: {"scores": inputs["x"]})


def sample(name: str, scores: list[float], label: int) -> tuple[str, dict[str, np.ndarray], int]:
    return name, {"x": np.asarray([scores], dtype=np.float32)}, label


SIX = [
    sample("right.jpg", [9, 0, 0, 0, 0, 0], 0),
    sample("second.jpg", [9, 8, 0, 0, 0, 0], 1),
    sample("last.jpg", [5, 4, 3, 2, 1, 0], 5),
    sample("fifth.jpg", [5, 4, 3, 2, 1, 0], 4),
]


def test_top1_and_top5_are_counted() -> None:
    result = evaluate(IDENTITY, SIX)

    assert result.images == 4
    assert result.top1 == 0.25
    assert result.top5 == 0.75
    assert result.agreement is None


def test_agreement_is_with_the_float_model() -> None:
    contrary = Function(lambda inputs: {"scores": -inputs["x"]})

    assert evaluate(IDENTITY, SIX, reference=IDENTITY).agreement == 1.0
    assert evaluate(contrary, SIX, reference=IDENTITY).agreement == 0.0


def test_of_equal_scores_the_first_class_wins() -> None:
    ties = [sample("a", [1, 1], 0), sample("b", [1, 1], 1)]

    assert evaluate(IDENTITY, ties).top1 == 0.5


def test_a_nan_is_never_right() -> None:
    result = evaluate(IDENTITY, [sample("a", [1, math.nan], 0)], reference=IDENTITY)

    assert (result.top1, result.top5, result.agreement) == (0.0, 0.0, 0.0)


def test_the_json_has_rates_and_their_errors() -> None:
    document = json.loads(json.dumps(evaluate(IDENTITY, SIX).to_json(), allow_nan=False))

    assert document["images"] == 4
    assert document["top1"] == 0.25
    assert document["top1_stderr"] == pytest.approx(math.sqrt(0.25 * 0.75 / 4))
    assert document["agreement"] is None
    assert document["agreement_stderr"] is None


def test_progress_shows_the_running_rate() -> None:
    listener = Listener()

    evaluate(IDENTITY, SIX[:2], progress=listener, total=2)

    assert listener.events == ["Evaluating 2", "top-1 100.0%", "top-1 50.0%", "end"]


@pytest.mark.parametrize("label", [-1, 6])
def test_a_label_that_is_no_class_is_named(label: int) -> None:
    with pytest.raises(CalibrationError, match=f"label {label}") as caught:
        evaluate(IDENTITY, [sample("cat.jpg", [0] * 6, label)])

    assert caught.value.at == "cat.jpg"


def test_no_labelled_image_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="nothing to evaluate"):
        evaluate(IDENTITY, [])


def test_a_detector_cannot_be_evaluated() -> None:
    detector = Function(lambda _: {"map": np.zeros((1, 3, 8, 8), np.float32)})
    with pytest.raises(UsageError, match="no classifier") as caught:
        evaluate(detector, SIX)

    assert "[1, 3, 8, 8]" in caught.value.why


def test_an_output_can_be_chosen() -> None:
    two = Function(lambda inputs: {"a": inputs["x"], "b": -inputs["x"]})

    assert evaluate(two, SIX, output="a").top1 == 0.25
    with pytest.raises(UsageError, match="no output 'c'"):
        evaluate(two, SIX, output="c")

"""SSD's detection output against OpenCV's, and what it does at its edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typing_extensions import override

from qconvert.errors import ModelFormatError, UnsupportedError
from qconvert.functions.prior_box import PriorBox
from qconvert.graph import DOMAIN
from tests.frontends.caffe.nets import Net, layer, read, run, run_opencv

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.quant import F32

PRIORS, CLASSES = 40, 4


@dataclass(frozen=True)
class Case:
    """Parameters of a DetectionOutput."""

    id: str
    body: str
    shared: bool = True
    background: int = 0


CASES = [
    Case("center_size", "code_type: CENTER_SIZE keep_top_k: 200"),
    Case("corner", "code_type: CORNER keep_top_k: 200"),
    Case("keep_few", "code_type: CENTER_SIZE keep_top_k: 7"),
    Case("box_per_class", "code_type: CENTER_SIZE keep_top_k: 200",
         shared=False),
    Case("background_last", "code_type: CENTER_SIZE keep_top_k: 200", background=3),
]  # fmt: skip


def detector(case: Case) -> Net:
    """A net of one DetectionOutput."""
    body = (
        f"detection_output_param {{ num_classes: {CLASSES} confidence_threshold: 0.3 "
        f"nms_param {{ nms_threshold: 0.35 top_k: 25 }} {case.body} "
        f"share_location: {str(case.shared).lower()} background_label_id: {case.background} }}"
    )
    columns = 1 if case.shared else CLASSES
    shapes = ((1, PRIORS * 4 * columns), (1, PRIORS * CLASSES), (1, 2, PRIORS * 4))
    return Net(case.id, layer("DetectionOutput", body, bottoms="xyz"), shapes)


def _inputs(net: Net) -> dict[str, F32]:
    """Plausible locations, probabilities and priors."""
    rng = np.random.default_rng(3)
    scores = rng.dirichlet(np.full(CLASSES, 0.4), PRIORS)
    centres, sizes = rng.uniform(0.2, 0.8, (PRIORS, 2)), rng.uniform(0.1, 0.4, (PRIORS, 2))
    priors = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)
    variances = np.tile([0.1, 0.1, 0.2, 0.2], PRIORS)
    return {
        "x": rng.normal(0, 0.6, net.shapes[0]).astype(np.float32),
        "y": scores.reshape(1, -1).astype(np.float32),
        "z": np.stack([priors.ravel(), variances])[None].astype(np.float32),
    }


class _Fed(Net):
    """A net whose inputs are given."""

    @override
    def inputs(self) -> dict[str, F32]:
        return _inputs(self)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_detections_agree_with_opencv(case: Case, tmp_path: Path) -> None:
    plain = detector(case)
    net = _Fed(plain.id, plain.layers, plain.shapes)

    actual = run(read(net, tmp_path), net.inputs())["out"][0, 0]

    expected = run_opencv(net, ["out"])["out"][0, 0]
    expected = expected[expected[:, 2] > 0]  # OpenCV fills up with zeros
    assert len(actual) > 3
    order = [np.lexsort(rows[:, [3, 2, 1]].T) for rows in (actual, expected)]
    np.testing.assert_allclose(actual[order[0]], expected[order[1]], atol=1e-5)


def _detections(body: str, inputs: dict[str, F32], folder: Path) -> F32:
    net = detector(Case("one", f"{body} keep_top_k: 200"))
    rows: F32 = run(read(net, folder), inputs)["out"][0, 0]
    return rows


def test_variances_in_the_target_are_variances_of_one(tmp_path: Path) -> None:
    inputs = _inputs(detector(CASES[0]))
    ones = {**inputs, "z": inputs["z"].copy()}
    ones["z"][:, 1] = 1

    encoded = _detections(
        "code_type: CENTER_SIZE variance_encoded_in_target: true", inputs, tmp_path
    )

    expected = _detections("code_type: CENTER_SIZE", ones, tmp_path)
    np.testing.assert_allclose(encoded, expected, atol=1e-6)


def test_corner_size_is_corner_with_moves_in_units_of_the_prior(tmp_path: Path) -> None:
    inputs = _inputs(detector(CASES[0]))
    corners = inputs["z"][0, 0].reshape(-1, 4)
    sizes = np.tile(corners[:, 2:] - corners[:, :2], 2)
    moved = {**inputs, "x": inputs["x"] * sizes.reshape(1, -1)}

    actual = _detections("code_type: CORNER_SIZE", inputs, tmp_path)

    expected = _detections("code_type: CORNER", moved, tmp_path)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_rows_stand_by_label_then_by_falling_score(tmp_path: Path) -> None:
    net = detector(CASES[2])

    rows = run(read(net, tmp_path), _inputs(net))["out"][0, 0]

    keys = list(zip(rows[:, 1], -rows[:, 2], strict=True))
    assert keys == sorted(keys)
    assert len(rows) == 7


def test_nothing_found_is_one_row_of_minus_one(tmp_path: Path) -> None:
    net = detector(CASES[0])
    inputs = _inputs(net)
    inputs["y"] = np.zeros_like(inputs["y"])

    assert run(read(net, tmp_path), inputs)["out"].tolist() == [[[[-1.0] * 7]]]


def test_a_backend_finds_the_parameters_on_the_node(tmp_path: Path) -> None:
    node = next(iter(read(detector(CASES[2]), tmp_path).graph))

    assert (node.domain, node.op_type, node.name) == (DOMAIN, "DetectionOutput", "out")
    assert node.attributes["keep_top_k"].as_int() == 7
    assert node.attributes["code"].as_string() == "center_size"
    assert node.attributes["nms_threshold"].as_float() == pytest.approx(0.35)


def test_an_adaptive_threshold_is_refused(tmp_path: Path) -> None:
    net = detector(CASES[0])
    text = net.layers.replace("nms_threshold: 0.35", "nms_threshold: 0.6 eta: 0.9")

    with pytest.raises(UnsupportedError, match="eta"):
        read(Net("eta", text, net.shapes), tmp_path)


def test_counts_that_do_not_belong_together_are_an_error(tmp_path: Path) -> None:
    net = detector(CASES[0])

    with pytest.raises(ModelFormatError, match="reads the shapes"):
        read(Net("few", net.layers, ((1, 8), *net.shapes[1:])), tmp_path)


def test_a_layer_after_the_detections_is_refused(tmp_path: Path) -> None:
    net = detector(CASES[0])
    text = net.layers + 'layer { name: "f" type: "Flatten" bottom: "out" top: "f" }'

    with pytest.raises(UnsupportedError) as caught:
        read(Net("after", text, net.shapes), tmp_path)

    assert "depends on the data" in caught.value.why


def test_box_sizes_lose_their_fraction_and_ratios_their_twins() -> None:
    box = PriorBox(
        min_sizes=(30.9,),
        max_sizes=(60.9,),
        aspect_ratios=(2.0, 1.0, 2.0000001, 0.5),
        flip=True,
        clip=False,
        variances=(0.1, 0.1, 0.2, 0.2),
        image=(300, 300),
        step=(8.0, 8.0),
        offset=0.5,
    )

    expected = [[30, 30], [1800**0.5] * 2, [30 * 2**0.5, 30 / 2**0.5], [30 / 2**0.5, 30 * 2**0.5]]
    np.testing.assert_allclose(box.sizes(), expected)
    assert box.count() == 4


def test_one_variance_stands_for_all_and_the_image_may_be_declared(tmp_path: Path) -> None:
    body = "prior_box_param { min_size: 20 img_h: 50 img_w: 100 step: 10 }"
    net = Net("prior", layer("PriorBox", body), ((1, 2, 2, 3),))

    boxes, variances = run(read(net, tmp_path), net.inputs())["out"][0].reshape(2, -1, 4)

    assert (variances == np.float32(0.1)).all()
    np.testing.assert_allclose(boxes[0], [-0.05, -0.1, 0.15, 0.3], atol=1e-6)
    np.testing.assert_allclose(boxes[1], [0.05, -0.1, 0.25, 0.3], atol=1e-6)
    np.testing.assert_allclose(boxes[3], [-0.05, 0.1, 0.15, 0.5], atol=1e-6)

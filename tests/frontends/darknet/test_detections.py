"""Decoding and suppression against Darknet's own detector, and by algebra where it has none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx_ir as ir
import pytest

from qconvert.errors import UnsupportedError
from qconvert.functions.detections import detections
from qconvert.functions.yolo import YoloHead
from qconvert.graph import IR_VERSION, OPSET
from qconvert.runtimes.onnx import OnnxRuntime
from tests.frontends.darknet.nets import Darknet, load, write

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.quant import F32


@dataclass(frozen=True)
class Case:
    """A detector after [net]."""

    id: str
    text: str


NET = "[net]\nbatch=1\nchannels=3\nheight=32\nwidth=48\n"
CONV = "[convolutional]\nfilters={}\nsize={}\nstride={}\npad=1\nactivation=linear\n"
YOLO = "[yolo]\nmask={}\nanchors=6,8, 20,10, 9,30, 25,25\nnum=4\nclasses=3\n"
REGION = "[region]\nanchors=1,2, 3,1, 2,2\nnum=3\nclasses=3\n"
CASES = [
    Case("yolo", CONV.format(16, 3, 4) + YOLO.format("1,3")),
    Case(
        "yolo_two_heads",
        CONV.format(16, 3, 4)
        + YOLO.format("1,3")
        + "[route]\nlayers=-2\n"
        + CONV.format(8, 3, 2)
        + YOLO.format("2"),
    ),
    Case("region_softmax", CONV.format(24, 3, 4) + REGION + "softmax=1\n"),
    Case("region_sigmoid", CONV.format(24, 3, 4) + REGION),
    Case("region_background", CONV.format(24, 3, 4) + REGION + "softmax=1\nbackground=1\n"),
    Case("region_mask", CONV.format(30, 3, 4) + REGION + "coords=6\nsoftmax=1\n"),
]


def compare(text: str, folder: Path, darknet: Darknet, rng: np.random.Generator) -> None:
    """Check that both find the same boxes for a random image."""
    source = write(folder, text, rng)
    x = rng.uniform(-9, 9, (1, 3, 32, 48)).astype(np.float32)

    with OnnxRuntime(load(source, detections=True), threads=1) as runtime:
        actual = runtime.run({"data": x})["detections"]

    expected = darknet.detections(source, x, 3, (0.25, 0.45))
    assert len(expected) > 5
    assert (np.diff(actual[:, 1]) <= 0).all()
    np.testing.assert_allclose(ordered(actual), ordered(expected), rtol=1e-4, atol=1e-4)


def ordered(rows: F32) -> F32:
    """Rows by label and score."""
    return rows[np.lexsort((-rows[:, 1], rows[:, 0]))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_detector_finds_what_darknet_finds(
    case: Case, darknet: Darknet, tmp_path: Path, rng: np.random.Generator
) -> None:
    compare(NET + case.text, tmp_path, darknet, rng)


@pytest.mark.parametrize("square", [0, 1])
def test_grid_finds_what_darknet_finds(
    square: int, darknet: Darknet, tmp_path: Path, rng: np.random.Generator
) -> None:
    head = f"[detection]\nside=4\nnum=2\nclasses=3\ncoords=4\nsqrt={square}\nsoftmax=1\n"
    source = write(tmp_path, NET + "[connected]\noutput=208\nactivation=logistic\n" + head, rng)
    x = rng.uniform(-2, 2, (1, 3, 32, 48)).astype(np.float32)

    with OnnxRuntime(load(source, detections=True), threads=1) as runtime:
        actual = runtime.run({"data": x})["detections"]

    # Darknet gives pixels here, whatever it is asked for.
    pixels = np.array([1, 1, 48, 32, 48, 32], dtype=np.float32)
    expected = darknet.detections(source, x, 3, (0.25, 0.45)) / pixels
    assert len(expected) > 3
    np.testing.assert_allclose(ordered(actual), ordered(expected), rtol=1e-4, atol=1e-4)


def test_nothing_found_is_no_row(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(write(tmp_path, NET + CASES[0].text, rng), detections=True)
    bias = model.graph.initializers["convolutional_0.bias"]
    bias.const_value = ir.Tensor(np.full(16, -1e3, np.float32))

    with OnnxRuntime(model, threads=1) as runtime:
        found = runtime.run({"data": np.zeros((1, 3, 32, 48), np.float32)})["detections"]

    assert found.shape == (0, 6)


def decoded(head: YoloHead, x: F32) -> F32:
    """What the detections function finds in one map."""
    data = ir.val("x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(x.shape))
    graph = ir.Graph([data], [], nodes=[], name="test", opset_imports={"": OPSET})
    model = ir.Model(graph, ir_version=IR_VERSION)
    node = detections(model, [data], [head], "detections")
    graph.append(node)
    node.outputs[0].name = "found"
    graph.outputs.append(node.outputs[0])
    with OnnxRuntime(model, threads=1) as runtime:
        return runtime.run({"x": x})["found"]


@pytest.fixture
def table(rng: np.random.Generator) -> F32:
    """A map of two anchors and two classes, [anchor, entry, y, x]."""
    return rng.uniform(-2, 2, (2, 7, 4, 5)).astype(np.float32)


PLAIN = YoloHead(anchors=((9, 7), (20, 30)), classes=2, network=(40, 32), scale_x_y=1.2)


def sigmoid(x: F32) -> F32:
    return (1 / (1 + np.exp(-x))).astype(np.float32)


def test_new_coordinates_are_old_ones_activated_before(table: F32) -> None:
    activated = sigmoid(table)
    activated[:, 2:4] = np.sqrt(np.exp(table[:, 2:4])) / 2
    new = replace(PLAIN, new_coords=True)

    expected = decoded(PLAIN, table.reshape(1, 14, 4, 5))
    actual = decoded(new, activated.reshape(1, 14, 4, 5))

    assert len(expected) > 5
    np.testing.assert_allclose(actual, expected, atol=1e-5)


POINTS: list[tuple[Literal["center", "left_top", "right_bottom"], float]] = [
    ("center", 0),
    ("left_top", 0.5),
    ("right_bottom", -0.5),
]


@pytest.mark.parametrize(("point", "shift"), POINTS)
def test_certain_gaussians_are_plain_boxes(
    table: F32, point: Literal["center", "left_top", "right_bottom"], shift: float
) -> None:
    spread = np.full((2, 11, 4, 5), -30, np.float32)
    spread[:, [0, 2, 4, 6]] = table[:, :4]
    spread[:, 8:] = table[:, 4:]
    gaussian = replace(PLAIN, gaussian=True, point=point)

    (first, *_), (expected, *_) = (
        decoded(gaussian, spread.reshape(1, 22, 4, 5)),
        decoded(PLAIN, table.reshape(1, 14, 4, 5)),
    )

    size = expected[4:] - expected[2:4]
    np.testing.assert_allclose(first[:2], expected[:2], atol=1e-5)
    np.testing.assert_allclose(first[2:], expected[2:] + shift * np.tile(size, 2), atol=1e-5)


def test_deviations_lower_the_score(table: F32) -> None:
    spread = np.full((2, 11, 4, 5), np.log(0.1 / 0.9), np.float32)
    spread[:, [0, 2, 4, 6]] = table[:, :4]
    spread[:, 8:] = table[:, 4:]
    gaussian = replace(PLAIN, gaussian=True)

    expected = decoded(PLAIN, table.reshape(1, 14, 4, 5))
    actual = decoded(gaussian, spread.reshape(1, 22, 4, 5))

    np.testing.assert_allclose(actual[0, 1], expected[0, 1] * 0.9, rtol=1e-5)
    np.testing.assert_allclose(actual[0, 2:], expected[0, 2:], atol=1e-5)


def test_classifiers_have_no_detections(tmp_path: Path, rng: np.random.Generator) -> None:
    source = write(tmp_path, NET + CONV.format(4, 3, 2) + "[avgpool]\n[softmax]\n", rng)

    with pytest.raises(UnsupportedError, match="no detections"):
        load(source, detections=True)


def test_heads_that_differ_in_classes_have_no_common_table(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    other = YOLO.format("2").replace("classes=3", "classes=1")
    text = CASES[0].text + "[route]\nlayers=-2\n" + CONV.format(6, 3, 2) + other
    source = write(tmp_path, NET + text, rng)

    with pytest.raises(UnsupportedError, match="heads of several kinds"):
        load(source, detections=True)

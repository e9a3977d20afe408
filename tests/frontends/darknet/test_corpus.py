"""Real networks against what OpenCV made of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from qconvert.frontends.darknet.reader import read
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.source import ReadOptions, Source

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.quant import F32

MODELS = (
    "darknet_mnv2_yolo_fastest_voc",
    "darknet_yolo_fastest_1.0_xl",
    "darknet_yolo_fastest_1.1",
    "darknet_yoloface_500k",
)


@dataclass(frozen=True)
class Reference:
    """One network of the corpus with the inputs and outputs of the independent runtime."""

    cfg: Path
    weights: Path
    arrays: dict[str, F32]

    @property
    def cases(self) -> list[int]:
        return [int(key.split("_")[1]) for key in self.arrays if key.startswith("input_")]

    @property
    def heads(self) -> list[int]:
        return [int(key.split("_")[-1]) for key in self.arrays if key.startswith("out_0::permute_")]

    @property
    def scales(self) -> list[float]:
        """scale_x_y of each head."""
        heads = self.cfg.read_text().split("[yolo]")[1:]
        found = [re.search(r"^scale_x_y\s*=\s*(\S+)", text, re.MULTILINE) for text in heads]
        return [float(match.group(1)) if match else 1.0 for match in found]


@pytest.fixture(params=MODELS)
def reference(request: pytest.FixtureRequest, corpus: Path) -> Reference:
    folder = corpus / "models" / request.param
    with np.load(folder / "reference.npz", allow_pickle=False) as arrays:
        held = {key: np.asarray(arrays[key], dtype=np.float32) for key in arrays}
    return Reference(next(folder.glob("*.cfg")), next(folder.glob("*.weights")), held)


def test_heads_equal_the_maps_of_opencv(reference: Reference) -> None:
    report = Report()
    options = ReadOptions(darknet_bn="opencv")
    model = read(Source(reference.cfg, reference.weights), options, report)
    runtime = OnnxRuntime(model, threads=1)

    assert report.warnings == []  # every byte and every key has found its place
    for case in reference.cases:
        outputs = runtime.run({"data": reference.arrays[f"input_{case}"]})
        assert list(outputs) == [f"yolo_{index}" for index in reference.heads]
        for index, scale in zip(reference.heads, reference.scales, strict=True):
            raw = reference.arrays[f"out_{case}::permute_{index}"].transpose(0, 3, 1, 2)
            expected = activated(raw, scale)
            actual = outputs[f"yolo_{index}"]
            assert np.abs(actual - expected).max() < 1e-4 * np.ptp(expected)
            assert cosine(actual, expected) > 0.99999


def test_detections_are_the_boxes_of_opencv(reference: Reference) -> None:
    options = ReadOptions(darknet_bn="opencv", detection_output=True)
    model = read(Source(reference.cfg, reference.weights), options, Report())
    runtime = OnnxRuntime(model, threads=1)

    for case in reference.cases:
        rows = np.concatenate(
            [reference.arrays[f"out_{case}::yolo_{index}"] for index in reference.heads]
        )
        expected = suppressed(rows, confidence=0.25, overlap=0.45)
        actual = runtime.run({"data": reference.arrays[f"input_{case}"]})["detections"]
        assert len(actual) == len(expected) > 0
        assert (np.diff(actual[:, 1]) <= 0).all()
        np.testing.assert_allclose(ordered(actual), ordered(expected), atol=1e-3)


def activated(raw: F32, scale: float) -> F32:
    """What a [yolo] layer gives for a map of three anchors."""
    table = raw.reshape(3, -1, *raw.shape[2:]).astype(np.float64)
    sigmoid = 1 / (1 + np.exp(-table))
    sigmoid[:, :2] = sigmoid[:, :2] * scale - (scale - 1) / 2
    sigmoid[:, 2:4] = table[:, 2:4]
    return sigmoid.reshape(raw.shape).astype(np.float32)


def suppressed(rows: F32, *, confidence: float, overlap: float) -> F32:
    """Boxes [K, 6] from OpenCV's rows, with OpenCV's own suppression, class by class."""
    found = []
    for label in range(rows.shape[1] - 5):
        scores = rows[:, 5 + label]
        corners = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]], axis=1)
        # OpenCV's boxes are integers of pixels or doubles; fractions stay doubles here.
        kept = cv2.dnn.NMSBoxes(
            corners.astype(float).tolist(), scores.astype(float).tolist(), confidence, overlap
        )
        for index in np.asarray(kept, dtype=int).ravel():
            x, y, width, height = corners[index]
            found.append([label, scores[index], x, y, x + width, y + height])
    return np.array(found, dtype=np.float32).reshape(-1, 6)


def ordered(rows: F32) -> F32:
    """Rows by label and score."""
    return rows[np.lexsort((-rows[:, 1], rows[:, 0]))]


def cosine(a: F32, b: F32) -> float:
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))

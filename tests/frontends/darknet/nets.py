"""Small networks with weights, and what other people's runtimes make of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import cv2
import numpy as np
from typing_extensions import override

from qconvert.frontends.darknet import cfg, reader
from qconvert.frontends.darknet.weights import CountedWeights
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.source import DarknetBn, ReadOptions, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.quant import F32

WORKER: Final = Path(__file__).with_name("worker.py")
HEADER = np.array([0, 2, 5, 0, 0], dtype="<i4").tobytes()


class Recorded(CountedWeights):
    """Random weights, kept in the order in which they are taken."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.arrays: list[F32] = []
        self._rng = rng

    @override
    def take(self, shape: Sequence[int], *, kind: str, layer: str, place: str) -> ir.TensorProtocol:
        tensor = super().take(shape, kind=kind, layer=layer, place=place)
        low, high = (0.2, 1.5) if kind in {"variance", "scale"} else (-0.5, 0.5)
        array = self._rng.uniform(low, high, tuple(shape)).astype(np.float32)
        if kind == "weight":
            array /= np.sqrt(max(array[0].size, 1) / 4)
        self.arrays.append(array)
        return tensor


def write(folder: Path, text: str, rng: np.random.Generator, *, biased: bool = True) -> Source:
    """A cfg and a file with as many random numbers as we believe it takes."""
    source = Source(folder / "net.cfg", folder / "net.weights")
    source.model.write_text(text)
    weights = Recorded(rng)
    weights.batchnorm_biases = biased
    reader.build(cfg.read(source.model, Report()), weights, ReadOptions(), Report())
    assert source.weights is not None
    source.weights.write_bytes(HEADER + b"".join(array.tobytes() for array in weights.arrays))
    return source


def load(source: Source, bn: DarknetBn = "opencv", *, detections: bool = False) -> ir.Model:
    """Our model; every byte and every key must have found its place."""
    report = Report()
    model = reader.read(source, ReadOptions(darknet_bn=bn, detection_output=detections), report)
    assert report.warnings == []
    return model


def ours(source: Source, x: F32, bn: DarknetBn = "opencv") -> dict[str, F32]:
    """What our model gives in onnxruntime."""
    with OnnxRuntime(load(source, bn), threads=1) as runtime:
        return runtime.run({"data": x})


def opencv(source: Source, x: F32, layer: str | None = None) -> F32:
    """What OpenCV gives for the last layer, or for one of its own layers."""
    net = cv2.dnn.readNetFromDarknet(str(source.model), str(source.weights))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.enableFusion(False)
    net.setInput(x)
    return np.asarray(net.forward() if layer is None else net.forward(layer), dtype=np.float32)


class Darknet:
    """Darknet's library in a process of its own."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._library = library
        self._folder = folder
        self._child: subprocess.Popen[str] | None = None
        self._answers: IO[str] | None = None

    def __call__(self, source: Source, x: F32, count: int) -> F32:
        """The first `count` numbers of the network's output."""
        return self._ask(source, x, {"count": count})

    def detections(
        self, source: Source, x: F32, classes: int, thresholds: tuple[float, float]
    ) -> F32:
        """Rows of label, score, x0, y0, x1, y1, in no order; thresholds of score and overlap."""
        size = (x.shape[3], x.shape[2])
        return self._ask(source, x, {"classes": classes, "size": size, "thresholds": thresholds})

    def _ask(self, source: Source, x: F32, wanted: dict[str, object]) -> F32:
        """Send a request and read the array that comes back."""
        given, result = self._folder / "input.npy", self._folder / "output.npy"
        files = {"cfg": source.model, "weights": source.weights, "input": given, "output": result}
        job = wanted | {key: str(path) for key, path in files.items()}
        np.save(given, x)
        child, answers = self._start()
        assert child.stdin is not None
        child.stdin.write(json.dumps(job) + "\n")
        child.stdin.flush()
        if answers.readline() != "done\n":
            code = child.wait()
            self.close()
            raise AssertionError(f"darknet ended with status {code}")
        return np.asarray(np.load(result), dtype=np.float32)

    def _start(self) -> tuple[subprocess.Popen[str], IO[str]]:
        if self._child is None or self._answers is None:
            mine, theirs = os.pipe()
            self._child = subprocess.Popen(
                [sys.executable, str(WORKER), str(self._library), str(theirs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs],
                text=True,
            )
            os.close(theirs)
            self._answers = os.fdopen(mine)
        return self._child, self._answers

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            assert self._child.stdin is not None
            self._child.stdin.close()
            self._child.wait()
            self._child = None
        if self._answers is not None:
            self._answers.close()
            self._answers = None

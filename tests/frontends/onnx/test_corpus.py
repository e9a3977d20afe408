"""Real models: what the frontend makes of them does what onnxruntime did with the originals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.frontends.onnx.onnx_files import load, run

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Real:
    id: str
    error: float = 1e-4
    """Largest error, as a share of the output's range."""


REAL = [
    Real("onnx_fastestdet"),
    Real("onnx_mnist_cntk"),
    Real("onnx_mobilenet_v1_025"),
    Real("onnx_resnet20_cifar10_fp32"),
    Real("onnx_resnet20_cifar10_qat_qdq"),
    # The reference computed in float16, whose step is 1e-3: what differs is its rounding.
    Real("onnx_squeezenet_fp16", error=1e-3),
    Real("onnx_style_mosaic"),
    Real("onnx_ultraface_rfb320"),
    Real("onnx_yunet_n_320"),
]


def compare(actual: np.ndarray, expected: np.ndarray, allowed: float) -> None:
    a, b = (array.astype(np.float64).reshape(-1) for array in (actual, expected))
    cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    assert actual.shape == expected.shape
    assert cosine > 0.99999
    # Two float32 steps below 1 are what a sigmoid's last digits depend on the machine.
    assert np.abs(a - b).max() < max(allowed * max(np.ptp(b), np.abs(b).max()), 2.4e-7)


@pytest.mark.parametrize("simplify", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("real", REAL, ids=lambda real: real.id)
def test_a_real_model_gives_its_reference(real: Real, corpus: Path, *, simplify: bool) -> None:
    folder = corpus / "models" / real.id
    reference = np.load(folder / "reference.npz")

    model = load(next(folder.glob("*.onnx")), simplify=simplify)

    names = [str(value.name) for value in model.graph.outputs]
    results = run(model, reference["input_0"])
    for key in (key for key in reference.files if key.startswith("out_0::")):
        name, _, stride = key.removeprefix("out_0::").partition("@stride")
        actual = results[names.index(name)]
        if stride:
            actual = actual[..., :: int(stride), :: int(stride)]
        compare(actual, reference[key], real.error)

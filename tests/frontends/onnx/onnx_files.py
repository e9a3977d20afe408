"""ONNX files for tests: written from text, read by the frontend, run by onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.parser

from qconvert.frontends.onnx import read
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.source import ReadOptions, Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt
    import onnx_ir as ir

__all__ = ["load", "run", "write"]


def write(
    folder: Path,
    text: str,
    weights: Mapping[str, npt.NDArray[Any]] | None = None,
    *,
    opset: int = 13,
    contrib: bool = False,
) -> Path:
    """An ONNX file: `text` is the graph, `weights` its initializers."""
    domains = f'"" : {opset}' + (', "com.microsoft" : 1' if contrib else "")
    model = onnx.parser.parse_model(f"<ir_version: 7, opset_import: [{domains}]>\n{text}")
    for name, array in (weights or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def load(path: Path, report: Report | None = None, **options: Any) -> ir.Model:  # noqa: ANN401
    """Read a file, by default without onnxsim: our own folding must be enough."""
    choices = ReadOptions(**{"simplify": False, **options})
    return read(Source(path), choices, report or Report())


def run(model: ir.Model | Path, *inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """The outputs of a model for its inputs in order."""
    with OnnxRuntime(model, threads=1) as runtime:
        feeds = dict(zip(runtime.inputs, inputs, strict=True))
        return [np.asarray(array) for array in runtime.run(feeds).values()]

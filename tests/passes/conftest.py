"""Graphs as text, and both sides of a pass in onnxruntime."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.quant import F32


class Build(Protocol):
    def __call__(self, body: str, /, **weights: np.ndarray | np.generic) -> ir.Model: ...


class Run(Protocol):
    def __call__(
        self, model: ir.Model, inputs: Mapping[str, F32], *, optimize: bool = False
    ) -> dict[str, F32]: ...


@pytest.fixture
def graph() -> Build:
    """Build a valid model from the text of a graph and the initializers it names."""

    def build(body: str, /, **weights: np.ndarray | np.generic) -> ir.Model:
        text = f'<ir_version: 10, opset_import: ["" : 21]>\n{body}'
        # The reader of ONNX text warns of inputs it has not seen yet: initializers come after.
        logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
        used = set(re.findall(r"\w+", body))
        tensors = [
            ir.tensor(np.asarray(array), name=key) for key, array in weights.items() if key in used
        ]
        model = ir.from_onnx_text(text, tensors)
        common.ShapeInferencePass()(model)
        common.CheckerPass()(model)
        return model

    return build


@pytest.fixture
def run() -> Run:
    """Run a model once, after the checker has seen it."""

    def execute(
        model: ir.Model, inputs: Mapping[str, F32], *, optimize: bool = False
    ) -> dict[str, F32]:
        common.CheckerPass()(model)
        with OnnxRuntime(model, optimize=optimize, threads=1) as runtime:
            return runtime.run(inputs)

    return execute

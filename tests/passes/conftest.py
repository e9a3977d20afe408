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


QAT = """
net (float[1, 4, 6, 6] x) => (float[1, 3] y) {
  sx = Constant <value = float {0.05}> ()
  sr = Constant <value = float {0.1}> ()
  z8 = Constant <value = int8 {0}> ()
  i8 = Identity (z8)
  zw = Constant <value = int8[6] {0, 0, 0, 0, 0, 0}> ()
  [q0] x_q = QuantizeLinear (x, sx, z8)
  [d0] x_d = DequantizeLinear (x_q, sx, i8)
  [wq] w_q = QuantizeLinear <axis = 0> (w, sw, zw)
  [wd] w_d = DequantizeLinear <axis = 0> (w_q, sw, zw)
  [sb] sb = Mul (sx, sw)
  [bd] b_d = DequantizeLinear <axis = 0> (b, sb)
  [conv] a = Conv <pads = [1, 1, 1, 1]> (x_d, w_d, b_d)
  [bn] n = BatchNormalization (a, g, h, m, v)
  [q1] n_q = QuantizeLinear (n, sr, z8)
  [d1] n_d = DequantizeLinear (n_q, sr, z8)
  [relu] r = Relu (n_d)
  [pool] p = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (r)
  [ud] u_d = DequantizeLinear (u, su)
  [conv2] c = Conv (p, u_d)
  [mean] e = GlobalAveragePool (c)
  [flat] f = Flatten (e)
  [fq] f_q = QuantizeLinear (f, sr, z8)
  [fd] f_d = DequantizeLinear (f_q, sr, z8)
  [kd] k_d = DequantizeLinear <axis = 0> (k, sk)
  [kt] k_t = Transpose <perm = [1, 0]> (k_d)
  [fc] t = Gemm (f_d, k_t)
  [tq] t_q = QuantizeLinear (t, sx, z8)
  [td] y = DequantizeLinear (t_q, sx, z8)
}
"""


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


@pytest.fixture
def qat(graph: Build, rng: np.random.Generator) -> ir.Model:
    """What PyTorch's and onnxruntime's exporters leave: every form of weight and bias."""

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def codes(*shape: int) -> np.ndarray:
        return rng.integers(-127, 128, shape).astype(np.int8)

    return graph(
        QAT,
        w=draw(6, 4, 3, 3),
        sw=rng.uniform(0.04, 0.06, 6).astype(np.float32),
        b=rng.integers(-500, 500, 6).astype(np.int32),
        g=draw(6),
        h=draw(6),
        m=draw(6),
        v=rng.uniform(0.5, 2, 6).astype(np.float32),
        u=codes(5, 6, 1, 1),
        su=np.float32(0.01),
        k=codes(3, 5),
        sk=rng.uniform(0.001, 0.002, 3).astype(np.float32),
    )

"""Integers against simulation: the algebra of docs/quantization.md, for arbitrary convolutions."""

from __future__ import annotations

import doctest
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from qconvert.quant import F32, QParams, asymmetric, quantize
from qconvert.runtimes.onnx import OnnxRuntime

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Convolution:
    """A two-dimensional convolution, codes and all."""

    groups: int
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    x: F32
    x_params: QParams
    w: F32
    w_params: QParams
    bias: F32


@st.composite
def convolutions(draw: st.DrawFn) -> Convolution:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.integers(1, 3))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    size = draw(st.integers(7, 9)), draw(st.integers(7, 9))
    low, high = sorted(draw(st.tuples(st.floats(-3, 3), st.floats(-3, 3))))
    x = rng.uniform(2 * low, 2 * high, (1, inputs, *size)).astype(np.float32)
    w = rng.normal(rng.normal(), 1, (outputs, inputs // groups, *kernel)).astype(np.float32)
    axes = (1, 2, 3)
    return Convolution(
        groups=groups,
        strides=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        dilations=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        pads=draw(st.tuples(*[st.integers(0, 2)] * 4)),
        x=x,
        # The range is narrower than the data: codes saturate, and all of them are met.
        x_params=asymmetric(low, high, bits=draw(st.integers(2, 8)), signed=draw(st.booleans())),
        w=w,
        w_params=asymmetric(
            w.min(axis=axes), w.max(axis=axes),
            bits=draw(st.integers(2, 8)), signed=draw(st.booleans()), axis=0,
        ),
        bias=rng.normal(size=outputs).astype(np.float32),
    )  # fmt: skip


def storage(params: QParams) -> type[np.int8 | np.uint8]:
    return np.int8 if params.signed else np.uint8


def simulated(case: Convolution) -> F32:
    """Quantize, dequantize, convolve: in onnxruntime."""
    kind = storage(case.x_params).__name__
    dims = ", ".join(str(size) for size in case.x.shape)
    text = f"""
        <ir_version: 10, opset_import: ["" : 21]>
        net (float[{dims}] x) => (float[] y) {{
          q = QuantizeLinear (x, s, z)
          c = Clip (q, low, high)
          d = DequantizeLinear (c, s, z)
          v = DequantizeLinear <axis = 0> (p, t, u)
          y = Conv <group = {case.groups}, strides = {list(case.strides)},
                    dilations = {list(case.dilations)}, pads = {list(case.pads)}> (d, v, b)
        }}
    """
    codes = quantize(case.w, case.w_params).astype(storage(case.w_params))
    constants = {
        "s": case.x_params.scale,
        "z": case.x_params.zero_point.astype(kind),
        "low": np.asarray(case.x_params.low, kind),
        "high": np.asarray(case.x_params.high, kind),
        "p": codes,
        "t": case.w_params.scale,
        "u": case.w_params.zero_point.astype(codes.dtype),
        "b": case.bias,
    }
    tensors = [ir.tensor(array, name=name) for name, array in constants.items()]
    model = ir.from_onnx_text(text, tensors)
    with OnnxRuntime(model, optimize=False, threads=1) as runtime:
        return runtime.run({"x": case.x})["y"]


def windows(case: Convolution, codes: I64) -> I64:
    """Codes under the kernel at each place: [groups, outputs high, wide, products]."""
    top, left, bottom, right = case.pads
    border = ((0, 0), (0, 0), (top, bottom), (left, right))
    padded = np.pad(codes, border, constant_values=int(case.x_params.zero_point))
    kernel = case.w.shape[2:]
    spans = [d * (k - 1) + 1 for d, k in zip(case.dilations, kernel, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(padded[0], spans, axis=(1, 2))
    views = views[:, :: case.strides[0], :: case.strides[1], :: case.dilations[0],
                  :: case.dilations[1]]  # fmt: skip
    grouped = views.reshape(case.groups, -1, *views.shape[1:])
    return np.moveaxis(grouped, 1, 3).reshape(case.groups, *views.shape[1:3], -1)


def four_terms(case: Convolution) -> tuple[list[I64], npt.NDArray[np.float64]]:
    """The four sums of every output [O, oH, oW], and how large the products are in sum."""
    q = windows(case, quantize(case.x, case.x_params).astype(np.int64))
    p = quantize(case.w, case.w_params).astype(np.int64)
    p = p.reshape(case.groups, -1, q.shape[-1])
    z = int(case.x_params.zero_point)
    u = case.w_params.zero_point.astype(np.int64).reshape(case.groups, -1)
    shape = (case.w.shape[0], *q.shape[1:3])
    product = np.einsum("ghwn,gon->gohw", q, p)
    inputs = np.einsum("ghwn,go->gohw", q, u)
    weights = np.broadcast_to((z * p.sum(axis=2))[..., None, None], product.shape)
    constant = np.broadcast_to((q.shape[-1] * z * u)[..., None, None], product.shape)
    size = np.einsum("ghwn,gon->gohw", np.abs(q - z), np.abs(p - u[..., None]))
    terms = [term.reshape(shape) for term in (product, inputs, weights, constant)]
    return terms, size.reshape(shape).astype(np.float64)


@given(case=convolutions())
def test_integer_convolution_equals_the_simulated_one(case: Convolution) -> None:
    (product, inputs, weights, constant), size = four_terms(case)

    accumulator = product - inputs - weights + constant

    step = float(case.x_params.scale) * case.w_params.scale.astype(np.float64)[:, None, None]
    exact = step * accumulator + case.bias.astype(np.float64)[:, None, None]
    rounding = 1e-6 * (step * size + np.abs(case.bias)[:, None, None])
    assert (np.abs(simulated(case)[0] - exact) <= rounding + 1e-30).all()


def test_the_worked_example_of_the_docs_computes_what_it_says() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "quantization.md"

    result = doctest.testfile(str(page), module_relative=False)

    assert result.attempted > 0
    assert result.failed == 0

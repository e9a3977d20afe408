"""The executor against onnxruntime's integer operators and Python's own integers."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.errors import VerificationError
from qconvert.integer import sums
from qconvert.integer.executor import Executor
from qconvert.integer.program import Codes, Layer, Numeric, Program, Role, Rounding, Tensor
from qconvert.integer.sums import accumulator_bits
from qconvert.runtimes.onnx import OnnxRuntime


def _tensor(name: str, role: Role, shape: tuple[int, ...], **more: Any) -> Tensor:  # noqa: ANN401 - fields of Tensor
    fields: dict[str, Any] = {"bits": 8, "signed": True, "low": -128, "high": 127, **more}
    return Tensor(name, name, role, shape=shape, axes="NCHW"[: len(shape)], **fields)


def _parameter(
    name: str, role: Role, values: npt.ArrayLike, bits: int, *, signed: bool = True
) -> Tensor:
    array = np.asarray(values)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    fields: dict[str, Any] = {"bits": bits, "signed": signed, "low": low, "high": high}
    tensor = _tensor(name, role, array.shape, **fields)
    return replace(tensor, values=array.astype(tensor.dtype))


def _program(layer: Layer, tensors: list[Tensor], numeric: Numeric | None = None) -> Program:
    by_id = {tensor.id: tensor for tensor in tensors}
    return Program(numeric or Numeric(), by_id, (layer,), ("x",), {"y": "y"})


def _integer_conv(x: Codes, zero: int, weight: Codes, attributes: dict[str, Any]) -> Codes:
    """onnxruntime's ConvInteger."""
    inputs = [
        ir.val("x", ir.DataType.UINT8, ir.Shape(x.shape)),
        ir.val("w", ir.DataType.INT8, ir.Shape(weight.shape)),
        ir.val("z", ir.DataType.UINT8, ir.Shape(())),
    ]
    result = ir.val("y", ir.DataType.INT32)
    node = ir.node(
        "ConvInteger",
        inputs,
        {
            "strides": attributes["strides"],
            "dilations": attributes["dilations"],
            "pads": attributes["pads"],
            "group": attributes["groups"],
        },
        outputs=[result],
    )
    graph = ir.Graph(inputs, [result], nodes=[node], opset_imports={"": 21}, name="conv")
    with OnnxRuntime(ir.Model(graph, ir_version=10), threads=1) as runtime:
        feeds: dict[str, Any] = {"x": x, "w": weight, "z": np.uint8(zero)}
        return np.asarray(runtime.run(feeds)["y"])


GEOMETRY = st.fixed_dictionaries(
    {
        "kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "strides": st.tuples(st.integers(1, 3), st.integers(1, 2)),
        "dilations": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "pads": st.tuples(*[st.integers(0, 2)] * 4),
        "groups": st.sampled_from([1, 2, 4]),
        "filters": st.sampled_from([1, 3]),
        "zero": st.integers(0, 255),
        "seed": st.integers(0, 2**16),
    }
)


@given(case=GEOMETRY)
def test_sums_of_a_convolution_equal_conv_integer(case: dict[str, Any]) -> None:
    rng = np.random.default_rng(case["seed"])
    groups, zero = case["groups"], case["zero"]
    x = rng.integers(0, 256, (1, 4, 9, 8)).astype(np.uint8)
    weight = rng.integers(-127, 128, (groups * case["filters"], 4 // groups, *case["kernel"]))
    weight = weight.astype(np.int8)
    keys = ("kernel", "strides", "dilations", "pads")
    attributes = {key: list(case[key]) for key in keys} | {"groups": groups, "pad_value": zero}
    expected = _integer_conv(x, zero, weight, attributes)

    folded = -zero * weight.reshape(len(weight), -1).astype(np.int64).sum(axis=1)
    tensors = [
        _tensor("x", "input", x.shape, signed=False, low=0, high=255, zero_point=zero),
        _parameter("w", "weight", weight, 8),
        _parameter("b", "bias", folded, 32),
        _tensor("y", "output", expected.shape, bits=32, low=-(2**31), high=2**31 - 1),
    ]
    layer = Layer(
        "conv", "conv", "depthwise" if groups == 4 else "conv", ("x",), ("y",),
        {"weight": "w", "bias": "b"}, attributes, (-(2**31), 2**31 - 1), 32, 32,
    )  # fmt: skip
    found = Executor(_program(layer, tensors)).run({"x": x})["y"]

    assert np.array_equal(found, expected)


@given(seed=st.integers(0, 2**16), rows=st.integers(1, 40))
def test_rows_at_a_time_give_what_the_whole_map_gives(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (1, 3, 10, 7)).astype(np.int8)
    weight = _parameter("w", "weight", rng.integers(-7, 8, (5, 3, 3, 3)), 4)
    attributes = {
        "kernel": [3, 3], "strides": [1, 1], "dilations": [1, 1], "pads": [1, 1, 1, 1],
        "groups": 1, "pad_value": 0,
    }  # fmt: skip
    layer = Layer("c", "c", "conv", ("x",), ("y",), {"weight": "w"}, attributes)
    job = sums.Sum.of(layer, weight, None, _tensor("x", "input", x.shape))

    whole = np.concatenate([part for _, part in sums.conv_sums(job, x)], axis=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "_CHUNK", rows * 27 * 7)
        parts = list(sums.conv_sums(job, x))

    assert np.array_equal(np.concatenate([part for _, part in parts], axis=2), whole)
    assert len(parts) == -(-10 // min(rows, 10)) or rows > 10


@pytest.mark.parametrize("bits", [8, 16, 33])
def test_sums_are_exact_in_every_arithmetic(rng: np.random.Generator, bits: int) -> None:
    reach = 2 ** (bits - 1) - 1
    x = rng.integers(-reach, reach + 1, 50)
    weight = rng.integers(-reach, reach + 1, (3, 50)) if bits < 33 else rng.integers(-9, 9, (3, 50))
    expected = [sum(int(a) * int(b) for a, b in zip(row, x, strict=True)) for row in weight]

    source = _tensor("x", "input", (1, 50), bits=bits, low=-reach, high=reach)
    layer = Layer("fc", "fc", "fc", ("x",), ("y",), {"weight": "w"})
    job = sums.Sum.of(layer, _parameter("w", "weight", weight, min(bits, 16)), None, source)
    found = sums.fc_sums(job, x.reshape(1, 50))

    assert found.tolist() == [expected]
    assert job.weight.dtype == {8: np.float32, 16: np.float64, 33: np.float64}[bits]


def test_what_no_float_holds_is_summed_in_int64() -> None:
    reach = 2**31 - 1
    source = _tensor("x", "input", (1, 4), bits=32, low=-reach, high=reach)
    weight = _parameter("w", "weight", [[2**30, -(2**30), 3, 5]], 32)
    layer = Layer("fc", "fc", "fc", ("x",), ("y",), {"weight": "w"})
    job = sums.Sum.of(layer, weight, None, source)

    found = sums.fc_sums(job, np.array([[reach, -reach, 7, 1]]))

    assert job.weight.dtype == np.int64
    assert found.tolist() == [[2 * 2**30 * reach + 26]]


def test_exponent_codes_are_shifts() -> None:
    weight = replace(_parameter("w", "weight", [[-3, -1, 0, 1, 2, 7]], 4), encoding="log2")

    assert sums.integers(weight).tolist() == [[-4, -1, 0, 1, 2, 64]]


@given(
    weight=st.lists(st.integers(-7, 7), min_size=1, max_size=4),
    bias=st.integers(-60, 60),
    low=st.integers(-3, 0),
    high=st.integers(0, 3),
)
def test_declared_widths_hold_every_partial_sum_and_no_bit_more(
    weight: list[int], bias: int, low: int, high: int
) -> None:
    reached = [
        start + sum(w * x for w, x in zip(chosen, codes, strict=True))
        for start in (0, bias)
        for chosen in itertools.product(*[(0, w) for w in weight])
        for codes in itertools.product(range(low, high + 1), repeat=len(weight))
    ]

    source = _tensor("x", "input", (1, len(weight)), low=low, high=high)
    bits = accumulator_bits(np.array([weight]), np.array([bias]), source)

    assert -(2 ** (bits - 1)) <= min(reached)
    assert max(reached) < 2 ** (bits - 1)
    assert bits == 1 or min(reached) < -(2 ** (bits - 2)) or max(reached) >= 2 ** (bits - 2)


def _fc(accumulator: int, needed: int) -> Program:
    tensors = [
        _tensor("x", "input", (1, 2)),
        _parameter("w", "weight", [[100, 100]], 8),
        _parameter("b", "bias", [0], 32),
        _parameter("m", "multiplier", [2**30], 31, signed=False),
        _parameter("s", "shift", [38], 6, signed=False),
        _tensor("y", "output", (1, 1), scale=(1.0,)),
    ]
    parameters = {"weight": "w", "bias": "b", "multiplier": "m", "shift": "s"}
    layer = Layer(
        "fc1", "fc1", "fc", ("x",), ("y",), parameters, {}, (-128, 127), accumulator, needed
    )
    return _program(layer, tensors)


def test_a_sum_that_leaves_its_accumulator_is_an_error_that_names_the_layer() -> None:
    executor = Executor(_fc(accumulator=15, needed=16))

    fits = executor.run({"x": np.array([[100, 60]], np.int8)})["y"]

    assert fits.tolist() == [[63]]  # 16000 / 256 = 62.5
    with pytest.raises(VerificationError, match="'fc1' overflows"):
        executor.run({"x": np.array([[100, 100]], np.int8)})


def test_codes_out_of_range_are_refused() -> None:
    program = _fc(16, 16)
    narrow = replace(program.tensors["x"], low=-63, high=63, bits=7)
    program = replace(program, tensors={**program.tensors, "x": narrow})

    with pytest.raises(VerificationError, match="are not its codes"):
        Executor(program).run({"x": np.array([[64, 0]], np.int8)})


@given(
    x=st.lists(st.integers(-128, 127), min_size=6, max_size=6),
    rounding=st.sampled_from(["half_up", "half_even", "half_away"]),
    multipliers=st.tuples(st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1)),
    shift=st.integers(20, 40),
)
def test_an_addition_equals_fractions(
    x: list[int], rounding: Rounding, multipliers: tuple[int, int], shift: int
) -> None:
    zeros, out_zero = (3, -5), 7
    tensors = [
        _tensor("x", "input", (1, 6), zero_point=zeros[0]),
        _tensor("b", "input", (1, 6), zero_point=zeros[1]),
        _parameter("m", "multiplier", multipliers, 31, signed=False),
        _parameter("s", "shift", [shift], 6, signed=False),
        _tensor("y", "output", (1, 6), zero_point=out_zero),
    ]
    layer = Layer(
        "add", "add", "add", ("x", "b"), ("y",), {"multiplier": "m", "shift": "s"},
        {"signs": [1, -1]}, (-128, 127), 44, 44,
    )  # fmt: skip
    program = replace(_program(layer, tensors, Numeric(rounding=rounding)), inputs=("x", "b"))
    other = x[::-1]

    found = Executor(program).run({"x": np.array([x], np.int8), "b": np.array([other], np.int8)})

    exact = [
        Fraction((a - zeros[0]) * multipliers[0] - (b - zeros[1]) * multipliers[1], 2**shift)
        for a, b in zip(x, other, strict=True)
    ]
    wanted = [max(-128, min(_rounded(value, rounding) + out_zero, 127)) for value in exact]
    assert found["y"].tolist() == [wanted]


def _rounded(value: Fraction, rounding: str) -> int:
    if rounding == "half_even":
        return round(value)
    if rounding == "half_up" or value >= 0:
        return floor(value + Fraction(1, 2))
    return -floor(-value + Fraction(1, 2))

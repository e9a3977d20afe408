"""The linter names what TensorRT refuses, and what makes it slow; on anybody's model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from qconvert.backends.tensorrt.lint import lint
from tests.backends.graphs import model_of
from tests.backends.tensorrt.support import (
    image,
    quantized,
    residual,
    weights_for,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WEIGHT = """
    wq = QuantizeLinear<axis = 0>(w, ws, wz)
    wd = DequantizeLinear<axis = 0>(wq, ws, wz)"""
INPUT = """
    xq = QuantizeLinear(x, s, z)
    xd = DequantizeLinear(xq, s, z)"""
CONV = "y = Conv<kernel_shape = [1, 1]>(xd, wd)"


@dataclass(frozen=True)
class Case:
    """A body for x [1, 16, 4, 4] → y, other constants, and what is found: rule → refused."""

    id: str
    body: str
    found: Mapping[str, bool]
    constants: Mapping[str, np.ndarray | np.generic] = field(default_factory=dict)
    outputs: str = "float[1, 16, 4, 4] y"


CASES = [
    Case("sound", INPUT + WEIGHT + CONV, {}),
    Case("stored_codes", INPUT + "wd = DequantizeLinear<axis = 0>(w8, ws, wz)" + CONV, {}),
    Case("zero_point", INPUT + WEIGHT + CONV, {"zero-point": True}, {"z": np.int8(3)}),
    Case("unsigned", INPUT + WEIGHT + CONV, {"type": True}, {"z": np.uint8(0)}),
    Case("sixteen_bits", INPUT + WEIGHT + CONV, {"type": True}, {"z": np.int16(0)}),
    Case("no_zero_point", INPUT.replace(", z)", ")") + WEIGHT + CONV, {"zero-point": True}),
    Case("negative_scale", INPUT + WEIGHT + CONV, {"scale": True}, {"s": np.float32(-1)}),
    Case("zero_scale", INPUT + WEIGHT + CONV, {"scale": True}, {"s": np.float32(0)}),
    Case("nan_scale", INPUT + WEIGHT + CONV, {"scale": True}, {"s": np.float32(np.nan)}),
    Case(
        "computed_scale",
        "r = ReduceMax<keepdims = 0>(x)\n" + INPUT.replace("s,", "r,") + WEIGHT + CONV,
        {"scale": True},
    ),
    Case(
        "activation_per_channel",
        INPUT.replace("Linear(", "Linear<axis = 1>(").replace("s, z", "ws, wz") + WEIGHT + CONV,
        {"per-channel": True},
    ),
    Case(
        "weight_along_inputs",
        INPUT + WEIGHT.replace("axis = 0", "axis = 1") + CONV,
        {"weight-axis": True},
    ),
    Case("other_scale_back", INPUT.replace("(xq, s", "(xq, t") + WEIGHT + CONV, {"pair": True}),
    Case(
        "clip_on_codes",
        INPUT.replace("xd = DequantizeLinear(xq", "xc = Clip(xq, low, high)\n"
                      "xd = DequantizeLinear(xc") + WEIGHT + CONV,
        {"pair": True},
        {"low": np.int8(-63), "high": np.int8(63)},
    ),
    Case(
        "float_weight", INPUT + "y = Conv<kernel_shape = [1, 1]>(xd, w)", {"half": False}
    ),
    Case("float_input", WEIGHT + "y = Conv<kernel_shape = [1, 1]>(x, wd)", {"half": False}),
    Case(
        "quantized_bias",
        INPUT + WEIGHT + "bd = DequantizeLinear(b8, s, z32)\n"
        "y = Conv<kernel_shape = [1, 1]>(xd, wd, bd)",
        {"bias": False, "type": True},
        {"b8": np.arange(16, dtype=np.int32), "z32": np.int32(0)},
    ),
    Case(
        "output",
        INPUT + WEIGHT + "c = Conv<kernel_shape = [1, 1]>(xd, wd)\n"
        "cq = QuantizeLinear(c, s, z)\n y = DequantizeLinear(cq, s, z)",
        {"output": False},
    ),
    Case(
        "torn_from_its_activation",
        INPUT + WEIGHT + "c = Conv<kernel_shape = [1, 1]>(xd, wd)\n"
        "cq = QuantizeLinear(c, s, z)\n cd = DequantizeLinear(cq, s, z)\n y = Relu(cd)",
        {"fusion": False},
    ),
    Case(
        "in_front_of_float",
        "xq = QuantizeLinear(x, s, z)\n xd = DequantizeLinear(xq, s, z)\n y = Sigmoid(xd)",
        {"float": False},
    ),
    Case(
        "two_pairs",
        INPUT + WEIGHT + "xq2 = QuantizeLinear(x, s, z)\n xd2 = DequantizeLinear(xq2, s, z)\n"
        "c = Conv<kernel_shape = [1, 1]>(xd, wd)\n c2 = Conv<kernel_shape = [1, 1]>(xd2, wd)\n"
        "y = Sub(c, c2)",
        {"shared": False},
    ),
    Case(
        "concat_of_two_scales",
        INPUT + WEIGHT + "n = Neg(x)\n nq = QuantizeLinear(n, t, z)\n"
        "nd = DequantizeLinear(nq, t, z)\n y = Concat<axis = 1>(xd, nd)",
        {"scale-shared": False},
        outputs="float[1, 32, 4, 4] y",
    ),
    Case(
        "both_sides_of_a_residual",
        INPUT + WEIGHT + "n = Neg(x)\n nq = QuantizeLinear(n, s, z)\n"
        "nd = DequantizeLinear(nq, s, z)\n c = Conv<kernel_shape = [1, 1]>(xd, wd)\n"
        "cq = QuantizeLinear(c, s, z)\n cd = DequantizeLinear(cq, s, z)\n y = Add(nd, cd)",
        {"residual": False},
    ),
    Case(
        "float_skip",
        INPUT + WEIGHT + "n = Neg(x)\n c = Conv<kernel_shape = [1, 1]>(xd, wd)\n y = Add(n, c)",
        {"residual": False},
    ),
    Case(
        "no_kernel",
        INPUT + "wq = QuantizeLinear(d, s, z)\n wd = DequantizeLinear(wq, s, z)\n"
        "y = Conv<kernel_shape = [1, 1], group = 16>(xd, wd)",
        {"kernel": False},
        {"d": np.ones((16, 1, 1, 1), np.float32)},
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_linter_finds_it_and_nothing_else(case: Case, rng: np.random.Generator) -> None:
    constants = {
        **weights_for(rng, w=(16, 16, 1, 1)),
        "w8": np.ones((16, 16, 1, 1), np.int8),
        "ws": np.linspace(0.1, 0.2, 16, dtype=np.float32),
        "wz": np.zeros(16, np.int8),
        "s": np.float32(0.02),
        "t": np.float32(0.03),
        "z": np.int8(0),
        **case.constants,
    }
    used = {name: array for name, array in constants.items() if _reads(case.body, name)}
    text = f"net (float[1, 16, 4, 4] x) => ({case.outputs}) {{ {case.body} }}"
    model = model_of(text, **used)

    findings = lint(model)

    assert {finding.rule: finding.refused for finding in findings} == dict(case.found)
    assert [finding.refused for finding in findings] == sorted(
        (finding.refused for finding in findings), reverse=True
    )


def _reads(body: str, name: str) -> bool:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return name in words


def test_constants_in_nodes_and_behind_identities_are_seen(rng: np.random.Generator) -> None:
    body = f"""net (float[1, 16, 4, 4] x) => (float[1, 16, 4, 4] y) {{
        s = Constant<value_float = 0.02>()
        z = Identity(zero)
        {INPUT} {WEIGHT} {CONV}
    }}"""
    model = model_of(
        body,
        zero=np.int8(0),
        ws=np.ones(16, np.float32),
        wz=np.zeros(16, np.int8),
        **weights_for(rng, w=(16, 16, 1, 1)),
    )

    assert lint(model) == []


@pytest.mark.parametrize("version", ["8.0.1", "8.6.1", "10.3.0", "11.0"])
def test_our_own_models_are_sound(version: str, tmp_path: Path, rng: np.random.Generator) -> None:
    model, feed = residual(rng), image(rng)

    write(tmp_path, quantized(model, feed), model, version=version)

    assert lint(ir.load(tmp_path / "model.qdq.onnx")) == []

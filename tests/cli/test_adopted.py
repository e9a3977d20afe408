"""Models that come quantized keep their own scales, and are float where a target has no room."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Command

LONE_ADD = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) {
    q = QuantizeLinear(x, s, z)
    d = DequantizeLinear(q, s, z)
    y = Add(d, d)
}
"""


def test_scales_without_an_integer_layer_leave_a_float_bundle(
    qconvert: Command, tmp_path: Path
) -> None:
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    constants = {"s": np.float32(1e-4), "z": np.int8(0)}
    tensors = [ir.tensor(np.asarray(value), name=name) for name, value in constants.items()]
    model = ir.from_onnx_text(LONE_ADD, tensors)
    common.ShapeInferencePass()(model)
    ir.save(model, tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", np.full((2, 4, 6, 6), 0.01, np.float32))

    outcome = qconvert(
        "convert", tmp_path / "net.onnx", "--to", "ncnn", "-o", tmp_path / "out",
        "--calib", tmp_path / "x.npy", "--json",
    )  # fmt: skip

    assert outcome.code == 0, outcome.err
    assert not (tmp_path / "out" / "model.table").exists()
    assert any("no layer" in warning for warning in outcome.json["warnings"])

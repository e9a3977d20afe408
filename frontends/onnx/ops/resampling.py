"""Resize and its ancestor, RoiAlign and GridSample of earlier opsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qconvert.frontends.onnx.builder import known_shape
from qconvert.frontends.onnx.registry import Refused, converts
from qconvert.frontends.onnx.standard import copy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from qconvert.frontends.onnx.call import Call

__all__: list[str] = []

_OLD: Final[Mapping[str, Any]] = {
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}
"""How Upsample and the first Resize choose their samples (onnxruntime upsample.cc)."""

_OLD_MODES: Final[Mapping[str, str]] = {
    "nearest": "nearest",
    "linear": "linear",
    "bilinear": "linear",
}
_GRID_MODES: Final[Mapping[str, str]] = {"bilinear": "linear", "bicubic": "cubic"}


@converts("Upsample")
def _upsample(call: Call) -> Sequence[ir.Value]:
    """Upsample → Resize; the scales are an input from opset 9 on."""
    if call.version < 9:
        scales = call.constant("scales", call.get("scales"), np.float32)
    else:
        scales = call.value(1)
    return _old_resize(call, scales)


@converts("Resize")
def _resize(call: Call) -> Sequence[ir.Value]:
    """Resize: opset 10 has two inputs and one way to sample; empty inputs mean left out."""
    if call.version < 11:
        return _old_resize(call, call.value(1))
    if call.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        raise Refused("tf_half_pixel_for_nn has no equal in our opset")
    inputs = [
        value if value is not None and not _is_empty(value) else None for value in call.inputs
    ]
    if len(inputs) > 3 and inputs[3] is not None:
        inputs[2] = None  # sizes win where a file gives both
    roi = inputs[1] if len(inputs) > 1 else None
    if call.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        roi = None
    return call.emit([inputs[0], roi, *inputs[2:]], call.plain())


def _old_resize(call: Call, scales: ir.Value) -> Sequence[ir.Value]:
    """A Resize with the sampling of Upsample."""
    mode = _OLD_MODES.get(str(call.get("mode", "nearest")))
    if mode is None:
        raise Refused(f"its mode '{call.get('mode')}' is not known")
    return call.emit([call.value(0), None, scales], {**_OLD, "mode": mode}, "Resize")


def _is_empty(value: ir.Value) -> bool:
    """Whether a value has no elements: how opset 11 spells an input that is left out."""
    shape = known_shape(value)
    return shape is not None and 0 in shape


@converts("RoiAlign")
def _roi_align(call: Call) -> Sequence[ir.Value]:
    """RoiAlign: before opset 16 regions are not shifted by half a pixel."""
    if call.version >= 16:
        return copy(call)
    mode = {"coordinate_transformation_mode": "output_half_pixel"}
    return call.emit(call.inputs, {**call.plain(), **mode})


@converts("GridSample")
def _grid_sample(call: Call) -> Sequence[ir.Value]:
    """GridSample: opset 20 renamed two modes."""
    if call.version >= 20:
        return copy(call)
    mode = str(call.get("mode", "bilinear"))
    return call.emit(call.inputs, {**call.plain(), "mode": _GRID_MODES.get(mode, mode)})

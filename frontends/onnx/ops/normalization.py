"""Normalizations and softmax of earlier opsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.frontends.onnx.registry import Refused, converts
from qconvert.frontends.onnx.standard import copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.frontends.onnx.call import Call

__all__: list[str] = []


@converts("BatchNormalization")
def _batch_normalization(call: Call) -> Sequence[ir.Value]:
    """BatchNormalization at inference: one output, statistics per channel."""
    if call.get("training_mode", 0):
        raise Refused("it is in training mode")
    if not call.get("spatial", 1):
        raise Refused("statistics per activation (spatial = 0) have no equal in our opset")
    call.refuse_outputs(1, "the statistics it would learn are read")
    only = call.emit_first(
        call.inputs[:5], call.plain("spatial", "momentum", "training_mode", "is_test")
    )
    return [only] * len(call.outputs)


@converts("Softmax", "LogSoftmax", "Hardmax")
def _softmax(call: Call) -> Sequence[ir.Value]:
    """Softmax: before opset 13 over all axes from `axis` on, taken together."""
    if call.version >= 13:
        return copy(call)
    shape, axis = call.shape(0), call.axis(1)
    if axis == len(shape):
        raise Refused("its axis is outside its input")
    if all(dim == 1 for dim in shape[axis + 1 :]):
        return call.emit([call.value(0)], {"axis": axis})
    rows = int(np.prod(shape[:axis], dtype=np.int64))
    flat = call.helper(
        "flat", "Reshape", [call.value(0), call.constant("rows", [rows, -1], np.int64)]
    )
    result = call.helper("softmax", call.op_type, [flat], {"axis": 1})
    return call.emit([result, call.constant("shape", shape, np.int64)], {}, "Reshape")


@converts("GroupNormalization")
def _group_normalization(call: Call) -> Sequence[ir.Value]:
    """GroupNormalization: before opset 21, scale and bias are per group, not per channel."""
    if call.version >= 21:
        return copy(call)
    channels, groups = call.shape(0)[1], int(call.get("num_groups"))
    if groups < 1 or channels % groups:
        raise Refused(f"{channels} channels do not make {groups} groups")
    column = call.constant("column", [groups, 1], np.int64)
    block = call.constant("block", [groups, channels // groups], np.int64)
    row = call.constant("row", [channels], np.int64)
    wide = []
    for index, part in ((1, "scale"), (2, "bias")):
        value = call.helper(f"{part}_column", "Reshape", [call.value(index), column])
        value = call.helper(f"{part}_block", "Expand", [value, block])
        wide.append(call.helper(part, "Reshape", [value, row]))
    return call.emit([call.value(0), *wide], call.plain())


@converts("MeanVarianceNormalization")
def _mean_variance_normalization(call: Call) -> Sequence[ir.Value]:
    """MeanVarianceNormalization: experimental before opset 9, over [H, W] or [C, H, W]."""
    if call.version >= 9:
        return copy(call)
    if not call.get("normalize_variance", 1):
        raise Refused("it removes the mean alone (normalize_variance = 0)")
    axes = [0, 1, 2, 3] if call.get("across_channels", 0) else [0, 2, 3]
    return call.emit([call.value(0)], {"axes": axes})

"""Operators whose attributes became inputs in a later opset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.frontends.onnx.builder import known_shape
from qconvert.frontends.onnx.quantized import scalar
from qconvert.frontends.onnx.registry import Refused, converts
from qconvert.frontends.onnx.standard import copy
from qconvert.graph import constant

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.frontends.onnx.call import Call

__all__: list[str] = []

_LAST = np.iinfo(np.int64).max


@converts("Clip")
def _clip(call: Call) -> Sequence[ir.Value]:
    """Clip: `min` and `max` are inputs from opset 11 on."""
    if call.version >= 11:
        return copy(call)
    bounds = [
        None if call.get(key) is None else call.constant(key, call.get(key), np.float32)
        for key in ("min", "max")
    ]
    return call.emit([call.value(0), *bounds], {})


@converts("Pad")
def _pad(call: Call) -> Sequence[ir.Value]:
    """Pad: `pads` and `value` are inputs from opset 11 on."""
    if call.version >= 11:
        return copy(call)
    pads = call.constant("pads", call.get("pads"), np.int64)
    value = call.constant("value", call.get("value", 0.0), np.float32)
    return call.emit([call.value(0), pads, value], call.plain("pads", "value"))


@converts("Slice")
def _slice(call: Call) -> Sequence[ir.Value]:
    """Slice: `starts`, `ends` and `axes` are inputs from opset 10 on."""
    if call.version >= 10:
        return copy(call)
    starts, ends = call.get("starts"), call.get("ends")
    axes = call.get("axes", range(len(starts)))
    return call.emit(
        [
            call.value(0),
            call.constant("starts", starts, np.int64),
            call.constant("ends", np.minimum(ends, _LAST), np.int64),
            call.constant("axes", list(axes), np.int64),
        ],
        {},
    )


@converts("TopK")
def _topk(call: Call) -> Sequence[ir.Value]:
    """TopK: `k` is an input from opset 10 on."""
    if call.version >= 10:
        return copy(call)
    return call.emit(
        [call.value(0), call.constant("k", [call.get("k")], np.int64)], call.plain("k")
    )


@converts("Squeeze", "Unsqueeze")
def _squeeze(call: Call) -> Sequence[ir.Value]:
    """Squeeze, Unsqueeze: `axes` is an input from opset 13 on."""
    if call.version >= 13 or call.get("axes") is None:
        return copy(call)
    return call.emit([call.value(0), call.constant("axes", call.get("axes"), np.int64)], {})


@converts("Split")
def _split(call: Call) -> Sequence[ir.Value]:
    """Split: `split` is an input from opset 13 on, `num_outputs` is new in 18."""
    if call.version < 13 and call.get("split") is not None:
        sizes = call.constant("split", call.get("split"), np.int64)
        return call.emit([call.value(0), sizes], call.plain("split"))
    if call.version < 18 and call.input(1) is None:
        return call.emit([call.value(0)], {**call.plain(), "num_outputs": len(call.outputs)})
    return copy(call)


@converts("ReduceSum")
def _reduce_sum(call: Call) -> Sequence[ir.Value]:
    """ReduceSum: `axes` is an input from opset 13 on."""
    return copy(call) if call.version >= 13 else _with_axes(call)


@converts(
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
)
def _reduce(call: Call) -> Sequence[ir.Value]:
    """The other reductions: `axes` is an input from opset 18 on."""
    return copy(call) if call.version >= 18 else _with_axes(call)


def _with_axes(call: Call) -> Sequence[ir.Value]:
    """A reduction whose attribute `axes` becomes an input."""
    axes = call.get("axes")
    if axes is None:
        return copy(call)
    return call.emit([call.value(0), call.constant("axes", axes, np.int64)], call.plain("axes"))


@converts("DFT")
def _dft(call: Call) -> Sequence[ir.Value]:
    """DFT: `axis` is an input from opset 20 on."""
    if call.version >= 20:
        return copy(call)
    axis = call.constant("axis", call.get("axis", 1), np.int64)
    return call.emit([call.value(0), call.input(1), axis], call.plain("axis"))


@converts("Range")
def _range(call: Call) -> Sequence[ir.Value]:
    """Range: exporters give its scalars as tensors of one element, which runtimes take."""
    parts = ("start", "limit", "delta")
    return call.emit([scalar(call, call.value(i), part) for i, part in enumerate(parts)], {})


@converts("Scatter")
def _scatter(call: Call) -> Sequence[ir.Value]:
    """Scatter is called ScatterElements from opset 11 on."""
    return call.emit(call.inputs, call.plain(), "ScatterElements")


@converts("Reshape")
def _reshape(call: Call) -> Sequence[ir.Value]:
    """Reshape: a target that spells the batch the file declared gets batch 1.

    The batch is 1 here whatever the file says; an exporter that traced batch N wrote N into
    every constant target.
    """
    declared = call.builder.replaced_batch
    target, shape = constant(call.input(1)), known_shape(call.value(0))
    if declared == 1 or target is None or not shape or target.size == 0:
        return copy(call)
    if shape[0] != 1 or int(target[0]) != declared:
        return copy(call)
    rest = [int(dim) for dim in target[1:]]
    known = int(np.prod([dim for dim in rest if dim > 0], dtype=np.int64))
    elements = int(np.prod(shape, dtype=np.int64))
    if elements % max(known, 1) or (-1 not in rest and 0 not in rest and elements != known):
        raise Refused(f"its target spells out batch {declared}, and batch 1 does not fit it")
    call.builder.warn(f"node '{call.name}' reshapes to batch {declared}; here the batch is 1")
    fresh = call.constant("shape", [1, *rest], np.int64)
    return call.emit([call.value(0), fresh], call.plain())

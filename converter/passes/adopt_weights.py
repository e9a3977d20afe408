"""Weights that were quantized elsewhere, in the form a target can hold.

A zero point moves into the codes, s (q - z) = s q', where q' still fits the type. A lowest code
that has no negative (-128) becomes its neighbour. What is left, scales along another axis or finer
than the target's, is rounded once more, from the values the codes stand for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from qconvert.passes.linear import output_axis
from qconvert.passes.read_qdq import weight_name
from qconvert.passes.rewrite import add_initializer, known_shape
from qconvert.qdq import Codes, code_bits, codes_of, pair_of
from qconvert.quant import QParams, code_range, quantize, symmetric

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.plan import OpRule, Policy
    from qconvert.report import Report

__all__ = ["adopt_weight"]


def adopt_weight(node: ir.Node, rule: OpRule, policy: Policy, report: Report) -> str | None:
    """Give `node` codes for its weight that the target can hold.

    Returns:
        Why the layer cannot have them; None when it has.
    """
    found = codes_of(node.inputs[1])
    if found is None:
        return None if pair_of(node.inputs[1]) is not None else "its weight has no codes"
    axis = 1 if node.op_type == "MatMul" else output_axis(node)
    codes, params = _centred(found)
    shared = _shared_scale(params, codes.shape[axis], axis, _runs(node, rule, codes, axis))
    if shared is None:
        return "the scales of its weight run along another axis than its outputs"
    if shared is not params:
        coarser = not np.array_equal(
            _spread(shared, codes.shape[axis]), _spread(params, codes.shape[axis])
        )
        if coarser:
            codes = quantize(_real(codes, params), shared)
            report.warn(
                f"weights of '{node.name}' are rounded again: {policy.target} has fewer "
                "scales than the model"
            )
    bits = code_bits(codes)
    if bits not in policy.weight_bits and not any(width > bits for width in policy.weight_bits):
        return f"{policy.target} has no {bits}-bit weights"
    if codes is not found.codes or shared is not found.params:
        _store(node, found, codes, replace(shared, bits=max(bits, 2)))
    return None


def _real(codes: npt.NDArray[np.integer], params: QParams) -> npt.NDArray[np.float32]:
    shape = [1] * codes.ndim
    if params.axis is not None:
        shape[params.axis] = -1
    return np.asarray(codes * params.scale.reshape(shape), dtype=np.float32)


def _centred(found: Codes) -> tuple[npt.NDArray[np.integer], QParams]:
    """Codes with zero point 0 in a narrow range, and their parameters."""
    params = found.params
    if params.symmetric:
        return found.codes, params
    shape = [1] * found.codes.ndim
    if params.axis is not None:
        shape[params.axis] = -1
    storage = 8 if found.codes.dtype.itemsize == 1 else 16
    low, high = code_range(storage)
    codes = found.codes.astype(np.int32) - params.zero_point.reshape(shape)
    zeros = np.zeros_like(params.zero_point)
    # One code beyond the range is the lowest of a full range: its neighbour will do.
    if codes.min() < low - 1 or codes.max() > high:
        axes = tuple(axis for axis in range(codes.ndim) if axis != params.axis)
        limits = np.abs(codes).max(axis=axes) * params.scale.astype(np.float64)
        wide = replace(params, zero_point=zeros)
        fitted = symmetric(limits, bits=storage, axis=params.axis)
        return quantize(_real(codes, wide), fitted), fitted
    codes = np.maximum(codes, low)
    return codes, QParams(params.scale, zeros, code_bits(codes), axis=params.axis)


def _runs(node: ir.Node, rule: OpRule, codes: npt.NDArray[np.integer], axis: int) -> int:
    """How many scales the target has for a weight: its channels, its groups, or one."""
    channels = codes.shape[axis]
    if rule.weights == "tensor":
        return 1
    groups = node.attributes.get_int("group", 1)
    return groups if rule.weights == "group" and node.op_type == "Conv" and groups > 1 else channels


def _spread(params: QParams, channels: int) -> npt.NDArray[np.float32]:
    """One scale per channel."""
    return np.broadcast_to(params.scale.reshape(-1), (channels,))


def _shared_scale(params: QParams, channels: int, axis: int, runs: int) -> QParams | None:
    """Parameters along `axis` with at most `runs` different scales; None for another axis."""
    if params.axis not in (None, axis) and params.scale.size > 1:
        return None
    scales = _spread(params, channels).reshape(runs, -1)
    largest = scales.max(axis=1, keepdims=True)
    if (scales == largest).all() and params.axis == axis:
        return params
    if params.axis is None:
        return params
    wide = np.broadcast_to(largest, scales.shape).reshape(-1)
    if runs == 1:
        return replace(
            params, scale=wide[0].reshape(()), zero_point=np.zeros((), np.int32), axis=None
        )
    return replace(params, scale=np.ascontiguousarray(wide), axis=axis)


def _store(node: ir.Node, found: Codes, codes: npt.NDArray[np.integer], params: QParams) -> None:
    """Put new codes behind the weight of `node`, and behind nobody else's."""
    graph, old = node.graph, found.node.outputs[0]
    assert isinstance(graph, ir.Graph)
    name = weight_name(found)
    storage = np.int8 if code_bits(codes) <= 8 else np.int16
    inputs = [
        add_initializer(graph, f"{name}/codes", codes.astype(storage)),
        add_initializer(graph, f"{name}/scale", params.scale),
        add_initializer(graph, f"{name}/zero_point", params.zero_point.astype(storage)),
    ]
    output = ir.val(None, dtype=ir.DataType.FLOAT, shape=known_shape(old))
    attributes = {} if params.axis is None else {"axis": params.axis}
    new = ir.node("DequantizeLinear", inputs, attributes, outputs=[output])
    graph.insert_before(node, new)
    node.replace_input_with(1, output)
    if not old.uses():
        names = (found.node.name, old.name)
        graph.remove(found.node, safe=True)
        new.name, output.name = names

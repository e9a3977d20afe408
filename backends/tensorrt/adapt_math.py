"""Operators that older opsets, or older parsers, lack, spelled out in ones they have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qconvert.backends.tensorrt.lowering import add_constant, expand, given, rank
from qconvert.graph import constant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.backends.tensorrt.lowering import Adapter

__all__ = ["MATH"]


def _scalar(node: ir.Node, part: str, value: float) -> ir.Value:
    """A number that multiplies a tensor without changing its rank."""
    shape = (1,) * (rank(node.inputs[0]) or 1)
    return add_constant(node, part, np.full(shape, value, np.float32))


def _hard_swish(node: ir.Node, opset: int) -> str | None:
    """X * max(0, min(1, x / 6 + 1 / 2))."""
    del opset
    tape, x = ir.tape.Tape(), node.inputs[0]
    gate = tape.op("HardSigmoid", [x], {"alpha": 1.0 / 6.0, "beta": 0.5})
    expand(node, tape, tape.op("Mul", [x, gate]))
    return None


def _mish(node: ir.Node, opset: int) -> str | None:
    """X * tanh(log(1 + exp(x)))."""
    del opset
    tape, x = ir.tape.Tape(), node.inputs[0]
    gate = tape.op("Tanh", [tape.op("Softplus", [x])])
    expand(node, tape, tape.op("Mul", [x, gate]))
    return None


def _gelu(node: ir.Node, opset: int) -> str | None:
    """X / 2 * (1 + erf(x / sqrt 2)), or its tanh form."""
    del opset
    tape, x = ir.tape.Tape(), node.inputs[0]
    half, one = _scalar(node, "half", 0.5), _scalar(node, "one", 1.0)
    if node.attributes.get_string("approximate", "none") == "tanh":
        cube = tape.op("Mul", [tape.op("Mul", [x, x]), x])
        bent = tape.op("Mul", [cube, _scalar(node, "bend", 0.044715)])
        scale = _scalar(node, "scale", math.sqrt(2.0 / math.pi))
        curve = tape.op("Tanh", [tape.op("Mul", [tape.op("Add", [x, bent]), scale])])
    else:
        narrow = tape.op("Mul", [x, _scalar(node, "scale", math.sqrt(0.5))])
        curve = tape.op("Erf", [narrow])
    gate = tape.op("Mul", [tape.op("Add", [curve, one]), half])
    expand(node, tape, tape.op("Mul", [x, gate]))
    return None


def _layer_norm(node: ir.Node, opset: int) -> str | None:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axes."""
    if len(node.outputs) > 1 and any(value.uses() for value in node.outputs[1:]):
        return "its mean and deviation are read too"
    x, ranks = node.inputs[0], rank(node.inputs[0])
    if ranks is None:
        return "the rank of its input is not known"
    axis = node.attributes.get_int("axis", -1) % ranks
    tape, axes = ir.tape.Tape(), list(range(axis, ranks))

    def mean(value: ir.Value) -> ir.Value:
        if opset < 18:
            return tape.op("ReduceMean", [value], {"axes": axes, "keepdims": 1})
        which = add_constant(node, "axes", np.asarray(axes, np.int64))
        return tape.op("ReduceMean", [value, which], {"keepdims": 1})

    assert x is not None
    centred = tape.op("Sub", [x, mean(x)])
    epsilon = _scalar(node, "epsilon", node.attributes.get_float("epsilon", 1e-5))
    variance = mean(tape.op("Mul", [centred, centred]))
    deviation = tape.op("Sqrt", [tape.op("Add", [variance, epsilon])])
    result = tape.op("Div", [centred, deviation])
    for operator, value in (("Mul", given(node, 1)), ("Add", given(node, 2))):
        if value is not None:
            result = tape.op(operator, [result, value])
    expand(node, tape, result)
    return None


def _group_norm(node: ir.Node, opset: int) -> str | None:
    """InstanceNormalization over the groups, then scale and bias per channel."""
    del opset
    x, scale, bias = node.inputs[0], constant(node.inputs[1]), constant(node.inputs[2])
    if x is None or x.shape is None or scale is None or bias is None:
        return "its scale or bias is computed at run time"
    shape = [int(dim) for dim in x.shape.numpy()]
    groups = node.attributes.get_int("num_groups", 1)
    tape = ir.tape.Tape()
    apart = add_constant(node, "groups", np.asarray([shape[0], groups, -1], np.int64))
    whole = add_constant(node, "whole", np.asarray(shape, np.int64))
    ones = add_constant(node, "ones", np.ones(groups, np.float32))
    zeros = add_constant(node, "zeros", np.zeros(groups, np.float32))
    parts = tape.op("Reshape", [x, apart])
    epsilon = {"epsilon": node.attributes.get_float("epsilon", 1e-5)}
    even = tape.op("InstanceNormalization", [parts, ones, zeros], epsilon)
    back = tape.op("Reshape", [even, whole])
    along = (1, -1, *[1] * (len(shape) - 2))
    each = shape[1] // scale.size
    factor = add_constant(node, "factor", np.repeat(scale, each).reshape(along))
    offset = add_constant(node, "offset", np.repeat(bias, each).reshape(along))
    expand(node, tape, tape.op("Add", [tape.op("Mul", [back, factor]), offset]))
    return None


MATH: Final[Mapping[str, tuple[int, Adapter]]] = {
    "Gelu": (20, _gelu),
    "GroupNormalization": (21, _group_norm),
    "HardSwish": (14, _hard_swish),
    "LayerNormalization": (17, _layer_norm),
    "Mish": (18, _mish),
}
"""Operator → (the opset that has it, what spells it out for older ones)."""

"""Arithmetic of two or more tensors. Broadcasting is made explicit: equal rank, axes of 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from qconvert.backends.ncnn.net import Blob, Shape, view
from qconvert.backends.ncnn.registry import Refusal, lowers

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context
    from qconvert.formats.ncnn_param import Param

_OPS: Final = {"Add": 0, "Sub": 1, "Mul": 2, "Div": 3}
_FOLDED: Final = {"Max": 4, "Min": 5, "Sum": 0, "Mean": 0}
_REVERSED: Final = {0: 0, 1: 7, 2: 2, 3: 8, 4: 4, 5: 5}
_POWERS: Final = {2.0: 4, 0.5: 5, -0.5: 6, -1.0: 15}

Operand: TypeAlias = "ir.Value | tuple[Blob, Shape] | None"
"""A value, or an intermediate blob with the ONNX shape it stands for."""


@lowers(*_OPS, to="BinaryOp (Scale, Bias for constants per channel)")
def _binary(ctx: Context, node: ir.Node) -> None:
    a, b = node.inputs[0], node.inputs[1]
    ctx.bind(node.outputs[0], binary(ctx, _OPS[node.op_type], a, b, node.outputs[0]))


@lowers("Pow", to="UnaryOp, BinaryOp")
def _pow(ctx: Context, node: ir.Node) -> None:
    """X ^ p for one constant p.

    ncnn's own power is exp(p * log(x)): wrong for every x that is not positive. Whole exponents
    are products here, and other ones see no x below the smallest float.
    """
    exponent = _scalar(ctx, node.inputs[1])
    x, out = node.inputs[0], node.outputs[0]
    if exponent is None or ctx.shape(x) != ctx.shape(out):
        raise Refusal("its exponent is not one constant number")
    blob = ctx.blob(x)
    if exponent in _POWERS:
        ctx.bind(out, ctx.layer("UnaryOp", [blob], {0: _POWERS[exponent]}, shape=blob.shape))
        return
    if float(exponent).is_integer() and 1 <= exponent <= 8:
        result = blob
        for index in range(2, int(exponent) + 1):
            last = index == exponent
            part = "" if last else f"power_{index}"
            result = ctx.layer("BinaryOp", [result, blob], {0: 2}, shape=blob.shape, part=part)
        ctx.bind(out, result)
        return
    smallest = float(np.finfo(np.float32).tiny)
    params: dict[int, Param] = {0: 4, 1: 1, 2: smallest}
    positive = ctx.layer("BinaryOp", [blob], params, shape=blob.shape, part="positive")
    params = {0: 6, 1: 1, 2: exponent}
    ctx.bind(out, ctx.layer("BinaryOp", [positive], params, shape=blob.shape))


@lowers(*_FOLDED, to="BinaryOp")
def _folded(ctx: Context, node: ir.Node) -> None:
    """Max, Min, Sum and Mean of any number of tensors, two at a time."""
    inputs = [value for value in node.inputs if value is not None]
    out = node.outputs[0]
    shape = ctx.shape(out)
    operand: Operand = inputs[0]
    blob = _align(ctx, inputs[0], out)
    for index, value in enumerate(inputs[1:], start=1):
        last = index == len(inputs) - 1 and node.op_type != "Mean"
        blob = binary(
            ctx, _FOLDED[node.op_type], operand, value, out, part="" if last else f"step_{index}"
        )
        operand = (blob, shape)
    if node.op_type == "Mean" and len(inputs) > 1:
        share = 1.0 / len(inputs)
        blob = ctx.layer("BinaryOp", [blob], {0: 2, 1: 1, 2: share}, shape=blob.shape)
    if blob.shape != view(shape):
        raise Refusal("its one input is broadcast")
    ctx.bind(out, blob)


def binary(ctx: Context, op: int, a: Operand, b: Operand, out: ir.Value, *, part: str = "") -> Blob:
    """`a <op> b` with the shape of `out` (or as much of it as the two span).

    Args:
        ctx: Where layers go.
        op: BinaryOp's number.
        a: Left operand.
        b: Right operand.
        out: Gives the ONNX shape both are broadcast to.
        part: Name of a helper layer; empty for the node's own.
    """
    for left, right, code in ((a, b, op), (b, a, _REVERSED[op])):
        scalar = _scalar(ctx, right)
        # A constant of one element with more axes than the other side would add axes.
        if (
            scalar is not None
            and _scalar(ctx, left) is None
            and _shape(ctx, left) == ctx.shape(out)
        ):
            blob = _align(ctx, left, out)
            params = {0: code, 1: 1, 2: scalar}
            return ctx.layer("BinaryOp", [blob], params, shape=blob.shape, part=part)
    for left, right in ((a, b), (b, a)):
        fast = _per_channel(ctx, op, left, right, out, part)
        if fast is not None:
            return fast
    first, second = _align(ctx, a, out), _align(ctx, b, out)
    spanned = tuple(max(m, n) for m, n in zip(first.shape, second.shape, strict=True))
    return ctx.layer("BinaryOp", [first, second], {0: op}, shape=spanned, part=part)


def _per_channel(
    ctx: Context, op: int, left: Operand, right: Operand, out: ir.Value, part: str
) -> Blob | None:
    """Scale or Bias, when `right` is a constant with one number for each channel of an image."""
    if op not in {0, 2} or isinstance(right, tuple) or right is None:
        return None
    array = ctx.constant(right)
    shape = ctx.shape(out)
    if array is None or _shape(ctx, left) != shape or len(shape) != 4 or shape[0] != 1:
        return None
    aligned = (1,) * (4 - array.ndim) + array.shape
    if aligned != (1, shape[1], 1, 1) or isinstance(left, tuple):
        return None
    if ctx.constant(left) is not None:
        return None
    kind, slot = ("Bias", "bias") if op == 0 else ("Scale", "scale")
    data = array.astype(np.float32).reshape(-1)
    return ctx.layer(
        kind, [ctx.blob(left)], {0: data.size}, shape=shape[1:], weights={slot: data}, part=part
    )


def _shape(ctx: Context, operand: Operand) -> Shape:
    """The ONNX shape of an operand."""
    return operand[1] if isinstance(operand, tuple) else ctx.shape(operand)


def _scalar(ctx: Context, operand: Operand) -> float | None:
    """The one number of a constant operand."""
    if isinstance(operand, tuple):
        return None
    array = ctx.constant(operand)
    if array is None or array.size != 1:
        return None
    number = float(np.float32(array.reshape(-1)[0]))
    return number if np.isfinite(number) else None


def _align(ctx: Context, operand: Operand, out: ir.Value) -> Blob:
    """The operand with as many ncnn axes as `out`; numpy aligns at the innermost axis."""
    target = ctx.shape(out)
    shape = _shape(ctx, operand)
    full = (1,) * (len(target) - len(shape)) + shape
    wanted = full[1:] if len(target) > 1 and target[0] == 1 else full or (1,)
    if not isinstance(operand, tuple):
        array = ctx.constant(operand)
        if array is not None and operand is not None:
            return ctx.memory(operand, array, wanted)
    blob = operand[0] if isinstance(operand, tuple) else ctx.blob(operand)
    ctx.count += 1
    return ctx.reshape(blob, wanted, f"align_{ctx.count}")

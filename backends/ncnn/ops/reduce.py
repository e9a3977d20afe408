"""Reductions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qconvert.backends.ncnn.registry import Refusal, lowers

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context
    from qconvert.formats.ncnn_param import Param

_OPS: Final = {
    "ReduceSum": 0,
    "ReduceSumSquare": 2,
    "ReduceMean": 3,
    "ReduceMax": 4,
    "ReduceMin": 5,
    "ReduceProd": 6,
    "ReduceL1": 7,
    "ReduceL2": 8,
    "ReduceLogSum": 9,
    "ReduceLogSumExp": 10,
}


@lowers(*_OPS, to="Reduction")
def _reduce(ctx: Context, node: ir.Node) -> None:
    """Reduce over constant axes; none given means all of them."""
    x = node.inputs[0]
    shape = ctx.shape(x)
    axes = _axes(ctx, node)
    if not axes:
        if node.attributes.get_int("noop_with_empty_axes", 0):
            ctx.bind(node.outputs[0], ctx.blob(x))
            return
        axes = tuple(range(len(shape)))
    axes = tuple(sorted({axis % max(len(shape), 1) for axis in axes}))
    blob = ctx.blob(x)
    dropped = len(shape) - len(blob.shape) if shape else 0
    inner = tuple(axis - dropped for axis in axes if axis >= dropped)
    if not inner:
        if node.op_type not in {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"}:
            raise Refusal("it runs over the batch axis only")
        ctx.bind(node.outputs[0], blob)
        return
    params: dict[int, Param] = {0: _OPS[node.op_type], 1: 0, 3: inner, 4: 1, 5: 1}
    kept = tuple(1 if i in inner else n for i, n in enumerate(blob.shape))
    ctx.bind(node.outputs[0], ctx.layer("Reduction", [blob], params, shape=kept))


def _axes(ctx: Context, node: ir.Node) -> tuple[int, ...]:
    """The axes of a reduction: an input since opset 18, an attribute before."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        return ctx.integers(node.inputs[1], "list of axes")
    return tuple(int(axis) for axis in node.attributes.get_ints("axes", ()) or ())

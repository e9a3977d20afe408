"""Fold BatchNormalization into the linear layer around it.

    y = gamma (u - mean) / sqrt(var + eps) + beta  =  f u + c
    f = gamma / sqrt(var + eps),  c = beta - f mean

After a Conv, ConvTranspose or Gemm, u = W x + b gives y = (f W) x + (f b + c).

Before a Conv or Gemm, W (f x + c) + b = (W f) x + (W c + b), with f along the input channels.
Where the Conv pads, its zeros stand for values *after* the normalization, and W c would be missing
at the border: exact only when c = 0 or nothing is padded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from typing_extensions import override

from qconvert.graph import constant, sole_consumer
from qconvert.passes.linear import (
    bias_of,
    scale_outputs,
    why_not_biased,
    why_not_linear,
    why_not_scale,
)
from qconvert.passes.rewrite import NodePass, absorb, set_constant

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

__all__ = ["FoldBatchNorm"]


class _Affine(NamedTuple):
    """A factor and an offset per channel, float64."""

    factor: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]


def _affine(bn: ir.Node) -> _Affine | None:
    """The factor and offset of a BatchNormalization with constant statistics."""
    arrays = [constant(value) for value in bn.inputs[1:5]]
    known = [array.astype(np.float64) for array in arrays if array is not None]
    if len(known) != 4:
        return None
    gamma, beta, mean, variance = known
    with np.errstate(all="ignore"):
        factor = gamma / np.sqrt(variance + bn.attributes.get_float("epsilon", 1e-5))
        return _Affine(factor, beta - mean * factor)


def _why_not_into_previous(bn: ir.Node, affine: _Affine) -> str | None:
    """Why the layer that `bn` reads cannot absorb it."""
    source = bn.inputs[0]
    layer = source.producer() if source is not None else None
    reason = why_not_linear(source, bn)
    if reason is not None or layer is None:
        return reason
    return why_not_scale(layer, affine.factor)


def _why_not_into_next(bn: ir.Node, affine: _Affine) -> str | None:
    """Why the layer that reads `bn` cannot absorb it."""
    layer = sole_consumer(bn.outputs[0])
    if layer is None or layer.domain or layer.op_type not in {"Conv", "Gemm"}:
        return "no layer before or after it can take it"
    if layer.inputs[0] is not bn.outputs[0] or layer.attributes.get_int("transA", 0) != 0:
        return f"'{layer.name}' does not read it as rows of channels"
    if constant(layer.inputs[1]) is None:
        return f"the weight of '{layer.name}' is computed at run time"
    reason = why_not_biased(layer)
    if reason is not None or layer.op_type == "Gemm":
        return reason
    padded = any(layer.attributes.get_ints("pads", ())) or layer.attributes.get_string(
        "auto_pad", "NOTSET"
    ) not in {"NOTSET", "VALID"}
    if padded and affine.offset.any():
        return f"'{layer.name}' pads with zeros that come after it"
    return None


class FoldBatchNorm(NodePass):
    """Remove every BatchNormalization that a neighbouring linear layer can absorb."""

    step = "fold_batchnorm"

    @override
    def matches(self, node: ir.Node) -> bool:
        return node.op_type == "BatchNormalization" and not node.domain

    @override
    def why_not(self, node: ir.Node) -> str | None:
        if node.attributes.get_int("training_mode", 0) != 0 or len(node.outputs) != 1:
            return "it is in training mode"
        affine = _affine(node)
        if affine is None:
            return "its statistics are computed at run time"
        if not (np.isfinite(affine.factor).all() and np.isfinite(affine.offset).all()):
            return "its factors are not finite (a variance is negative or not a number)"
        reason = _why_not_into_previous(node, affine)
        if reason is None or _why_not_into_next(node, affine) is None:
            return None
        return reason

    @override
    def rewrite(self, node: ir.Node) -> None:
        affine, source = _affine(node), node.inputs[0]
        assert affine is not None
        assert source is not None
        layer = source.producer()
        if layer is not None and _why_not_into_previous(node, affine) is None:
            scale_outputs(layer, affine.factor, affine.offset)
            absorb(node, source)
        else:
            _into_next(node, affine, source)


def _into_next(bn: ir.Node, affine: _Affine, source: ir.Value) -> None:
    """Move `bn` into the Conv or Gemm that reads it."""
    layer = sole_consumer(bn.outputs[0])
    assert layer is not None
    weight = constant(layer.inputs[1])
    assert weight is not None
    wide = weight.astype(np.float64)
    rows = wide.T if layer.op_type == "Gemm" and not layer.attributes.get_int("transB", 0) else wide
    groups = layer.attributes.get_int("group", 1)
    grouped = rows.reshape(groups, rows.shape[0] // groups, rows.shape[1], -1)
    factor, offset = (part.reshape(groups, 1, -1, 1) for part in affine)
    bias = (grouped * offset).sum(axis=(2, 3)).reshape(-1)
    scaled = (grouped * factor).reshape(rows.shape)
    old = bias_of(layer)
    set_constant(layer, 1, (scaled if rows is wide else scaled.T).astype(np.float32), "weight")
    if old is not None or bias.any():
        total = bias if old is None else bias + old
        set_constant(layer, 2, total.astype(np.float32), "bias")
    bn.outputs[0].replace_all_uses_with(source)
    assert bn.graph is not None
    bn.graph.remove(bn, safe=True)

"""Convolutions and fully connected layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qconvert.backends.raw.draft import NotInteger, Work, encoded, value_shape
from qconvert.backends.raw.factors import each_factor
from qconvert.backends.raw.windows import window
from qconvert.graph import constant
from qconvert.integer.sums import accumulator_bits
from qconvert.qdq import codes_of

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

    from qconvert.backends.raw.draft import Draft, Target
    from qconvert.integer.program import Op, Tensor
    from qconvert.integer.rounding import I64

__all__ = ["conv", "gemm"]

_WIDEST_SUM = 48
"""Bits that sums of products of 16-bit codes may have."""


@dataclass(frozen=True, slots=True, eq=False)
class _Weight:
    """A weight without zero points, output channels first.

    Attributes:
        codes: As they are stored.
        scales: [outputs], or [1].
        bits: Width of the codes.
        log2: Whether codes are signs and exponents.
    """

    codes: I64
    scales: npt.NDArray[np.float64]
    bits: int
    log2: bool = False

    @property
    def integers(self) -> I64:
        """What the codes multiply with."""
        if not self.log2:
            return self.codes
        return np.asarray(np.sign(self.codes) << np.maximum(np.abs(self.codes) - 1, 0))


def conv(draft: Draft, node: ir.Node, target: Target) -> Tensor:
    """A Conv of two spatial axes."""
    source = draft.tensor_of(node.inputs[0])
    if len(source.shape) != 4:
        raise NotInteger("it has other than two spatial axes")
    weight = _weight(node, output_axis=0)
    groups = node.attributes.get_int("group", 1)
    frame = window(node, source.shape, value_shape(node.outputs[0]), weight.codes.shape[2:])
    attributes = {**frame, "groups": groups, "pad_value": source.zero_point}
    op: Op = "depthwise" if 1 < groups == source.shape[1] else "conv"
    macs = math.prod(target.shape) * math.prod(weight.codes.shape[1:])
    return _linear(draft, node, target, weight, (op, attributes, macs))


def gemm(draft: Draft, node: ir.Node, target: Target) -> Tensor:
    """A Gemm with a constant weight."""
    plain = all(node.attributes.get_float(key, 1.0) == 1.0 for key in ("alpha", "beta"))
    if not plain or node.attributes.get_int("transA", 0) != 0:
        raise NotInteger("its input is transposed or its product scaled")
    if draft.tensor_of(node.inputs[0]).shape[0] != 1:
        raise NotInteger("its input has several rows")
    transposed = node.attributes.get_int("transB", 0) != 0
    weight = _weight(node, output_axis=0 if transposed else 1)
    return _linear(draft, node, target, weight, ("fc", {}, weight.codes.size))


def _weight(node: ir.Node, output_axis: int) -> _Weight:
    """The codes of a layer's weight."""
    found = codes_of(node.inputs[1])
    if found is None:
        raise NotInteger("its weight has no codes")
    params = found.params
    if params.axis not in (None, output_axis):
        raise NotInteger("the scales of its weight run along another axis than its outputs")
    codes = found.codes.astype(np.int64)
    if params.zero_point.any():
        shape = [1] * codes.ndim
        if params.axis is not None:
            shape[params.axis] = -1
        codes = codes - params.zero_point.astype(np.int64).reshape(shape)
    if output_axis == 1:
        codes = codes.T
    reach = int(np.abs(codes).max(initial=1))
    lowest = int(codes.min(initial=0))
    needed = max(reach.bit_length() + 1, 2) if lowest != -reach else (reach - 1).bit_length() + 1
    bits = max(params.bits, min(needed, reach.bit_length() + 1))
    scales = params.scale.astype(np.float64).reshape(-1)
    if params.log2:
        # The function's scale is the magnitude of its largest code.
        scales = scales * 2.0 ** (2 - 2 ** (params.bits - 1))
    return _Weight(np.ascontiguousarray(codes), scales, bits, params.log2)


def _bias(node: ir.Node, outputs: int) -> npt.NDArray[np.float64]:
    """The real bias of a layer."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return np.zeros(outputs)
    bias = constant(value)
    if bias is None or bias.size not in (1, outputs):
        raise NotInteger("its bias is not one known number per output")
    return np.broadcast_to(bias.astype(np.float64).reshape(-1), (outputs,))


def _roomy(
    weight: _Weight, bias: npt.NDArray[np.float64], unit: float, limit: int
) -> tuple[_Weight, int]:
    """Coarser scales for channels whose bias would not fit at theirs, and how many there are.

    Such a channel hardly looks at its input: beside the bias its products are nothing.
    """
    scales = np.broadcast_to(weight.scales, bias.shape)
    over = np.abs(bias) > limit * scales * unit
    if weight.log2 or not over.any():
        return weight, int(over.sum()) if weight.log2 else 0
    wider = np.where(over, np.abs(bias) / (limit * unit), scales)
    shape = (-1,) + (1,) * (weight.codes.ndim - 1)
    codes = np.rint(weight.codes * (scales / wider).reshape(shape)).astype(np.int64)
    return replace(weight, codes=codes, scales=wider), int(over.sum())


def _linear(
    draft: Draft,
    node: ir.Node,
    target: Target,
    weight: _Weight,
    kind: tuple[Op, dict[str, Any], int],
) -> Tensor:
    """Append the layer of a weight and a bias."""
    op, attributes, macs = kind
    name, source = str(node.name), draft.tensor_of(node.inputs[0])
    outputs = weight.codes.shape[0]
    real, unit = _bias(node, outputs), source.scale[0]
    if len(source.scale) != 1:
        raise NotInteger("its input has several scales")
    limit = 1 << ((32 if source.bits <= 8 and weight.bits <= 8 else _WIDEST_SUM) - 2)
    weight, changed = _roomy(weight, real, unit, limit)
    if changed and not weight.log2:
        draft.report.kept(
            "int32_bias", name, f"{changed} channels are nearly constant: coarser weight scales"
        )
    products = weight.scales * unit
    bias, shift, needed = _bias_codes(real / products, weight, source, draft.options.bias_bits)
    if shift:
        attributes = {**attributes, "bias_shift": shift}
    if needed > (32 if target.grid is None else 62):
        leave = " and leave as they are" if target.grid is None else ""
        raise NotInteger(f"its sums need {needed} bits{leave}")
    parameters = _parameters(draft, name, weight, products, bias)
    per_channel = weight.scales.size > 1
    if target.grid is None:
        reach = 1 << (needed - 1)
        result = draft.sums(
            target, (products if per_channel else products[:1]).tolist(), -reach, reach - 1
        )
        clamp = (result.low, result.high)
    else:
        factors = each_factor(draft, [float(p / target.grid.scale) for p in products])
        parameters |= draft.scaling(name, *factors)
        result, clamp = draft.activation(target), target.clamp
    return draft.layer(
        name,
        Work(op, clamp=clamp, parameters=parameters, attributes=attributes, bits=needed, macs=macs),
        [source],
        result,
    )


def _bias_codes(
    real: npt.NDArray[np.float64], weight: _Weight, source: Tensor, bits: int
) -> tuple[I64, int, int]:
    """A bias in units of a product, the zero point of what is read taken off.

    Args:
        real: The bias in those units, [outputs].
        weight: What the layer multiplies with.
        source: What it reads.
        bits: Width of biases.

    Returns:
        Codes, how far they are shifted up, and the width that holds every sum.
    """
    flat = weight.integers.reshape(len(real), -1)
    whole = np.rint(np.clip(real, -(2.0**61), 2.0**61)).astype(np.int64)
    bias, shift = _shifted(whole - source.zero_point * flat.sum(axis=1), bits)
    return bias, shift, accumulator_bits(flat, bias << shift, source)


def _shifted(bias: I64, bits: int) -> tuple[I64, int]:
    """A bias of `bits` bits, and how far it is shifted up before it is added."""
    top = (1 << (bits - 1)) - 1
    shift = 0
    while int(np.abs(_halved(bias, shift)).max(initial=0)) > top:
        shift += 1
    return _halved(bias, shift), shift


def _halved(bias: I64, shift: int) -> I64:
    """Bias / 2^shift, to nearest."""
    return np.asarray((bias + ((1 << shift) >> 1)) >> shift)


def _parameters(
    draft: Draft, name: str, weight: _Weight, products: npt.NDArray[np.float64], bias: I64
) -> dict[str, str]:
    """Weight and bias as tensors."""
    top = (1 << (weight.bits - 1)) - 1
    low = min(-top, int(weight.codes.min(initial=0)))
    axis = 0 if weight.scales.size > 1 else None
    return {
        "weight": draft.parameter(
            name,
            "weight",
            weight.codes,
            bits=weight.bits,
            axes="OIHW" if weight.codes.ndim == 4 else "OI",
            low=low,
            high=top,
            scale=tuple(weight.scales.tolist()),
            axis=axis,
            encoding=encoded(log2=weight.log2),
        ),
        "bias": draft.parameter(
            name,
            "bias",
            bias,
            bits=draft.options.bias_bits,
            scale=tuple(products.tolist()),
            axis=axis,
        ),
    }

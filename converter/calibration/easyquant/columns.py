"""Linear layers as matrix products at chosen output positions: Y = W X + b.

Every linear operator multiplies each output position's receptive field by one matrix. With the
fields as columns (im2col), a layer of `groups` groups is a stack of products

    Y[g] = W[g] X[g] + b[g]        W [G, O/G, K], X [G, K, P], Y [G, O/G, P], K = C/G * taps

and everything a search asks about the layer is asked of these matrices. Positions are sampled:
neighbouring outputs of a convolution say nearly the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qconvert.graph import constant, shape_of

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

    from qconvert.plan import PlannedLayer
    from qconvert.quant import F32

__all__ = ["Geometry", "bias", "geometry", "own_bias", "units"]


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """How a linear layer reads its input.

    Attributes:
        op_type: Conv, ConvTranspose, Gemm or MatMul.
        groups: Groups of a convolution; 1 otherwise.
        weight_shape: Of the initializer.
        transposed: Whether the rows of a Gemm's weight are output channels (`transB`).
        window: Spatial parameters; None for Gemm and MatMul.
        positions: Output positions per sample.
    """

    op_type: str
    groups: int
    weight_shape: tuple[int, ...]
    transposed: bool
    window: Window | None
    positions: int

    def matrix(self, weight: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """`weight` as [G, O/G, K]."""
        groups = self.groups
        if self.op_type == "Conv":
            return weight.reshape(groups, weight.shape[0] // groups, -1)
        if self.op_type == "ConvTranspose":
            outputs = weight.shape[1]
            split = weight.reshape(groups, weight.shape[0] // groups, outputs, -1)
            return split.transpose(0, 2, 1, 3).reshape(groups, outputs, -1)
        return (weight if self.transposed else weight.T)[None]

    def tensor(self, matrix: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The inverse of `matrix`: [G, O/G, K] in the initializer's shape."""
        if self.op_type == "Conv":
            return matrix.reshape(self.weight_shape)
        if self.op_type == "ConvTranspose":
            inputs, outputs = self.weight_shape[:2]
            split = matrix.reshape(self.groups, outputs, inputs // self.groups, -1)
            return split.transpose(0, 2, 1, 3).reshape(self.weight_shape)
        return np.ascontiguousarray(matrix[0] if self.transposed else matrix[0].T)

    def columns(self, x: F32, at: npt.NDArray[np.intp]) -> F32:
        """Receptive fields of the positions `at` in one sample, [G, K, P]."""
        if self.window is None:
            return np.ascontiguousarray(x.reshape(-1, x.shape[-1])[at].T)[None]
        channels = x.shape[1]
        flat = np.zeros((channels, x[0, 0].size + 1), np.float32)  # the last one is padding
        flat[:, :-1] = x.reshape(channels, -1)
        fields = flat[:, self.window.sources(at)]
        return fields.reshape(self.groups, -1, len(at))

    def outputs(self, y: F32, at: npt.NDArray[np.intp]) -> F32:
        """The output of one sample at positions `at`, [O, P]."""
        if self.window is None:
            return np.ascontiguousarray(y.reshape(-1, y.shape[-1])[at].T)
        return y.reshape(y.shape[1], -1)[:, at]


@dataclass(frozen=True, slots=True)
class Window:
    """Spatial parameters of a convolution, one entry per spatial axis.

    Attributes:
        kernel: Taps.
        strides: Strides.
        dilations: Dilations.
        begins: Padding before.
        inputs: Input size.
        outputs: Output size.
        backward: Whether it is a ConvTranspose.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    backward: bool

    def sources(self, at: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Flat input index of every tap at every position, [taps, P]; one past the end: padding."""
        position = np.unravel_index(at, self.outputs)
        taps = np.unravel_index(np.arange(int(np.prod(self.kernel))), self.kernel)
        flat = np.zeros((len(taps[0]), len(at)), np.intp)
        inside = np.ones(flat.shape, bool)
        for axis, size in enumerate(self.inputs):
            place = self._along(axis, position[axis][None, :], taps[axis][:, None])
            inside &= (place >= 0) & (place < size)
            flat = flat * size + place
        return np.where(inside, flat, int(np.prod(self.inputs)))

    def _along(
        self, axis: int, position: npt.NDArray[np.intp], tap: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.intp]:
        """Input coordinate along one axis; negative where a ConvTranspose has no source."""
        stride, offset = self.strides[axis], tap * self.dilations[axis]
        if not self.backward:
            return position * stride - self.begins[axis] + offset
        reached = position + self.begins[axis] - offset
        return np.where(reached % stride == 0, reached // stride, -1)


def geometry(node: ir.Node) -> Geometry | None:
    """How `node` reads its input; None when it is not a plain linear layer with known numbers."""
    weight, source = node.inputs[1], node.inputs[0]
    if source is None or weight is None or constant(weight) is None or bias(node) is None:
        return None
    y = shape_of(node.outputs[0])
    if node.op_type in {"Gemm", "MatMul"}:
        if len(shape_of(weight)) != 2 or node.attributes.get_int("transA", 0) != 0:
            return None
        transposed = node.attributes.get_int("transB", 0) != 0
        rows = int(np.prod(y[:-1]))
        return Geometry(node.op_type, 1, shape_of(weight), transposed, None, rows)
    if node.op_type not in {"Conv", "ConvTranspose"}:
        return None
    window = _window(node, shape_of(source), y, shape_of(weight))
    groups = node.attributes.get_int("group", 1)
    rows = int(np.prod(y[2:]))
    return Geometry(node.op_type, groups, shape_of(weight), False, window, rows)


def bias(node: ir.Node) -> F32 | None:
    """The bias of a linear layer as [O]; None when it is computed or not one number a channel."""
    channels = shape_of(node.outputs[0])[-1 if node.op_type in {"Gemm", "MatMul"} else 1]
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return np.zeros(channels, np.float32)
    held = constant(node.inputs[2])
    scaled = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    if held is None or held.size not in (1, channels) or scaled != [1.0, 1.0]:
        return None
    return np.broadcast_to(held.astype(np.float32).reshape(-1), (channels,))


def own_bias(node: ir.Node) -> ir.Value | None:
    """The bias of a linear layer, where it is a constant of its own with a number a channel."""
    held = node.inputs[2] if len(node.inputs) > 2 else None
    stored, offset = constant(held), bias(node)
    if held is None or stored is None or offset is None or len(list(held.uses())) != 1:
        return None
    return held if stored.size == len(offset) else None


def _window(
    node: ir.Node, x: tuple[int, ...], y: tuple[int, ...], weight: tuple[int, ...]
) -> Window:
    """The spatial parameters of a convolution, defaults and automatic padding resolved."""
    rank, backward = len(x) - 2, node.op_type == "ConvTranspose"
    strides = tuple(node.attributes.get_ints("strides", [1] * rank))
    dilations = tuple(node.attributes.get_ints("dilations", [1] * rank))
    pads = tuple(node.attributes.get_ints("pads", [0] * 2 * rank))[:rank]
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if mode in {"SAME_UPPER", "SAME_LOWER"} or (backward and "output_shape" in node.attributes):
        extra = node.attributes.get_ints("output_padding", [0] * rank)
        totals = [
            _total(x[axis + 2], y[axis + 2], spread, strides[axis], extra[axis], backward=backward)
            for axis, spread in enumerate(
                (k - 1) * d + 1 for k, d in zip(weight[2:], dilations, strict=True)
            )
        ]
        # Conv puts an odd pixel first for SAME_LOWER, ConvTranspose for all but SAME_UPPER.
        first = mode != "SAME_UPPER" if backward else mode == "SAME_LOWER"
        pads = tuple(total - total // 2 if first else total // 2 for total in totals)
    return Window(weight[2:], strides, dilations, pads, x[2:], y[2:], backward)


def _total(x: int, y: int, spread: int, stride: int, extra: int, *, backward: bool) -> int:
    """Padding along one axis, where the operator derives it from its sizes."""
    if backward:
        return max((x - 1) * stride + extra + spread - y, 0)
    return max((y - 1) * stride + spread - x, 0)


def units(layer: PlannedLayer, shape: Geometry, scales: int) -> npt.NDArray[np.intp]:
    """Which scale each entry of the weight's scale vector shares, [scales].

    Args:
        layer: Says how fine scales are.
        shape: The layer's geometry.
        scales: Length of the scale vector; 1 for one scale.
    """
    entries = np.arange(scales)
    if layer.granularity == "tensor" or scales == 1:
        return np.zeros(scales, np.intp)
    if layer.granularity == "group" and shape.groups > 1:
        return entries // (scales // shape.groups)
    return entries

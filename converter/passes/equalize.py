"""Cross-layer equalization: even out the channels of an activation without changing the network.

A positive factor per channel passes through everything that is positively homogeneous and keeps
channels apart, f(x / s) = f(x) / s: Relu, LeakyRelu, PRelu, pooling, Concat, resizing, a sum of
equals. So between linear layers

    W2 f(W1 x + b1) = (W2 S) f((W1 / S) x + b1 / S)        S diagonal, > 0

and S is free. An activation has one scale for all its channels: with S = (range / typical range)
to the power `STRENGTH`, quiet channels get more of its codes, loud ones fewer, and per-channel
weights carry the difference. Where no ranges are measured, the weights stand in for them: the
square root of a channel's range in W1 over its range in W2 (Nagel et al. 2019, arXiv:1906.04721,
section 4.1). A Relu6, being bounded, keeps its channels as they are.

Channels that must share a factor (both sides of an Add, what a Concat collects) are found by
union; a channel that reaches an input, an output or any other operator has factor 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
from typing_extensions import override

from qconvert.graph import constant, is_output
from qconvert.passes.linear import LINEAR, scale_outputs, why_not_biased
from qconvert.passes.rewrite import known_shape, set_constant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from qconvert.quant import F32
    from qconvert.report import Report

    F64 = npt.NDArray[np.float64]

__all__ = ["STRENGTH", "Equalize", "watched"]

STRENGTH: Final = 0.6
"""1 would give every channel the same range, and its whole imbalance to the weights."""

_LARGEST: Final = 64.0
_HOMOGENEOUS: Final = frozenset(
    {
        "AveragePool",
        "Dropout",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "Relu",
    }
)


class _Channels:
    """Channels of all values, and which of them must have the same factor."""

    def __init__(self) -> None:
        self._start: dict[ir.Value, int] = {}
        self._parent: list[int] = []
        self._fixed: list[bool] = []

    def of(self, value: ir.Value) -> npt.NDArray[np.intp] | None:
        """The channels of `value`; None when it has none (no axis 1)."""
        shape = known_shape(value)
        if shape is None or len(shape) < 2 or value.dtype != ir.DataType.FLOAT:
            return None
        if value not in self._start:
            self._start[value] = len(self._parent)
            self._parent.extend(range(len(self._parent), len(self._parent) + shape[1]))
            self._fixed.extend([False] * shape[1])
        return self._start[value] + np.arange(shape[1])

    def root(self, channel: int) -> int:
        """Who stands for `channel`."""
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel

    def join(self, left: Iterable[int], right: Iterable[int]) -> None:
        """Give channels, pair by pair, the same factor."""
        for one, other in zip(left, right, strict=True):
            first, second = sorted((self.root(int(one)), self.root(int(other))))
            self._parent[second] = first
            self._fixed[first] |= self._fixed[second]

    def fix(self, value: ir.Value | None) -> None:
        """Give the channels of `value` factor 1."""
        channels = None if value is None else self.of(value)
        for channel in () if channels is None else channels:
            self._fixed[self.root(int(channel))] = True

    def roots(self, value: ir.Value) -> npt.NDArray[np.intp] | None:
        """Who stands for each channel of `value`, -1 where the factor is 1."""
        channels = self.of(value)
        if channels is None:
            return None
        found = [self.root(int(channel)) for channel in channels]
        return np.array([-1 if self._fixed[root] else root for root in found], np.intp)


def watched(model: ir.Model) -> tuple[str, ...]:
    """The activations whose channel ranges `Equalize` wants: what linear layers read."""
    channels = _constraints(model)
    names = []
    for node in model.graph:
        if _why_not_layer(node) is None:
            source = node.inputs[0]
            assert source is not None
            roots = channels.roots(source)
            if roots is not None and (roots >= 0).any():
                names.append(str(source.name))
    return tuple(dict.fromkeys(names))


class Equalize(ir.passes.InPlacePass):
    """Even out channels between linear layers; the network computes what it did.

    Args:
        report: Told of each layer that changed.
        ranges: How large each channel gets, by the names that `watched` gives; None: judge
            by the weights.
        strength: 0 changes nothing, 1 makes all ranges equal.
    """

    def __init__(
        self, report: Report, ranges: Mapping[str, F32] | None = None, strength: float = STRENGTH
    ) -> None:
        super().__init__()
        self.report, self.ranges, self.strength = report, ranges, strength

    @override
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        channels = _constraints(model)
        layers = [node for node in model.graph if _why_not_layer(node) is None]
        factors = self._factors(layers, channels)
        modified = False
        for node in layers:
            source, result = node.inputs[0], node.outputs[0]
            assert source is not None
            into, out = (_spread(channels.roots(value), factors) for value in (source, result))
            if (into != 1).any():
                _scale_inputs(node, into)
            if (out != 1).any():
                scale_outputs(node, 1.0 / out, np.zeros(out.size))
            if (into != 1).any() or (out != 1).any():
                self.report.did("equalize", str(node.name))
                modified = True
        return ir.passes.PassResult(model, modified=modified)

    def _factors(self, layers: Sequence[ir.Node], channels: _Channels) -> dict[int, float]:
        """Free channel → what its values are divided by."""
        found: dict[int, float] = {}
        for roots, wanted in self._wishes(layers, channels):
            alive = (roots >= 0) & (wanted > 0)
            if not alive.any():
                continue
            rest = wanted[(roots < 0) & (wanted > 0)]
            # Channels that cannot move are the measure for those that can.
            level = rest.max() if rest.size else np.exp(np.log(wanted[alive]).mean())
            relative = np.clip((wanted[alive] / level) ** self.strength, 1 / _LARGEST, _LARGEST)
            for root, factor in zip(roots[alive].tolist(), relative.tolist(), strict=True):
                found[root] = max(found.get(root, 0.0), factor)
        return found

    def _wishes(
        self, layers: Sequence[ir.Node], channels: _Channels
    ) -> Iterable[tuple[npt.NDArray[np.intp], F64]]:
        """(roots, range) of the channels of each activation that linear layers read."""
        produced = _weight_ranges(layers, channels) if self.ranges is None else {}
        for source in {node.inputs[0]: None for node in layers}:
            assert source is not None
            roots = channels.roots(source)
            if roots is None:
                continue
            if self.ranges is not None:
                measured = self.ranges.get(str(source.name))
                if measured is not None:
                    yield roots, np.asarray(measured, np.float64)
                continue
            read = np.zeros(len(roots))
            for node in layers:
                if node.inputs[0] is source:
                    read = np.maximum(read, _input_ranges(node))
            made = np.array([produced.get(int(root), 0.0) for root in roots])
            ratio = np.where(read > 0, made / np.where(read > 0, read, 1.0), 0.0)
            yield roots, np.sqrt(ratio)


def _spread(roots: npt.NDArray[np.intp] | None, factors: Mapping[int, float]) -> F64:
    """Factors of the channels of one value."""
    found = () if roots is None else roots
    return np.array([factors.get(int(root), 1.0) for root in found], np.float64)


def _weight_ranges(layers: Sequence[ir.Node], channels: _Channels) -> dict[int, float]:
    """Free channel → largest weight of the rows that make it."""
    found: dict[int, float] = {}
    for node in layers:
        roots = channels.roots(node.outputs[0])
        if roots is None:
            continue
        for root, size in zip(roots.tolist(), _output_ranges(node).tolist(), strict=True):
            found[root] = max(found.get(root, 0.0), size)
    return found


def _split(node: ir.Node) -> tuple[F64, int]:
    """Magnitudes of a weight as [groups, I/g, O/g, taps], and whether rows are inputs."""
    weight = constant(node.inputs[1])
    assert weight is not None
    size = np.abs(weight.astype(np.float64))
    groups = node.attributes.get_int("group", 1)
    if node.op_type == "Conv":
        split = size.reshape(groups, size.shape[0] // groups, size.shape[1], -1)
        return split.transpose(0, 2, 1, 3), groups
    if node.op_type == "ConvTranspose":
        return size.reshape(groups, size.shape[0] // groups, size.shape[1], -1), groups
    rows = size.T if node.attributes.get_int("transB", 0) != 0 else size
    return rows[None, :, :, None], 1


def _input_ranges(node: ir.Node) -> F64:
    """Largest weight of every input channel, [I]."""
    return np.asarray(_split(node)[0].max(axis=(2, 3)).ravel())


def _output_ranges(node: ir.Node) -> F64:
    """Largest weight of every output channel, [O]."""
    return np.asarray(_split(node)[0].max(axis=(1, 3)).ravel())


def _scale_inputs(node: ir.Node, factor: F64) -> None:
    """Multiply the weights of each input channel, [I]."""
    weight = constant(node.inputs[1])
    assert weight is not None
    groups = node.attributes.get_int("group", 1)
    trailing = [1] * (weight.ndim - 2)
    if node.op_type == "Conv":
        each = factor.reshape(groups, 1, -1)
        along = np.repeat(each, weight.shape[0] // groups, axis=1)
        shaped = along.reshape(weight.shape[0], weight.shape[1], *trailing)
    elif node.op_type == "ConvTranspose" or node.attributes.get_int("transB", 0) == 0:
        shaped = factor.reshape(-1, 1, *trailing)
    else:
        shaped = factor.reshape(1, -1)
    set_constant(node, 1, (weight.astype(np.float64) * shaped).astype(np.float32), "weight")


def _why_not_layer(node: ir.Node) -> str | None:
    """Why a node is no linear layer whose weights may be changed."""
    if node.domain or node.op_type not in LINEAR:
        return "it is not linear"
    source, weight = node.inputs[0], node.inputs[1]
    if source is None or weight is None or constant(weight) is None:
        return "its weight is computed at run time"
    if node.attributes.get_int("transA", 0) != 0:
        return "its input is transposed"
    if weight.dtype != ir.DataType.FLOAT or known_shape(source) is None:
        return "it is not float of known shape"
    return why_not_biased(node)


def _constraints(model: ir.Model) -> _Channels:
    """Which channels of a model are free, and which go together."""
    channels = _Channels()
    for value in model.graph.inputs:
        channels.fix(value)
    for node in model.graph:
        _constrain(node, channels)
        for value in node.outputs:
            if is_output(value):
                channels.fix(value)
    return channels


def _constrain(node: ir.Node, channels: _Channels) -> None:
    """Add what `node` demands of the channels around it."""
    if _why_not_layer(node) is None or _pass_through(node, channels):
        return
    for value in (*node.inputs, *node.outputs):
        channels.fix(value)


def _pass_through(node: ir.Node, channels: _Channels) -> bool:
    """Join the channels of inputs and outputs where factors pass `node`; else say no."""
    inputs = [value for value in node.inputs if value is not None and constant(value) is None]
    made = channels.of(node.outputs[0])
    read = [side for value in inputs if (side := channels.of(value)) is not None]
    if node.domain or made is None or len(read) != len(inputs):
        return False
    sides = _sides(node, inputs, read, len(made))
    for side in sides:
        channels.join(side, made)
    return len(sides) > 0


def _sides(
    node: ir.Node,
    inputs: Sequence[ir.Value],
    read: Sequence[npt.NDArray[np.intp]],
    made: int,
) -> Sequence[npt.NDArray[np.intp]]:
    """Input channels behind each of the `made` output channels, once per input that has all."""
    result = node.outputs[0]
    whole = len(inputs) == len(node.inputs)
    if node.op_type == "Concat" and whole and _axis(node, result) == 1:
        return [np.concatenate(read)]
    if node.op_type in {"Add", "Sum"} and whole:
        alike = all(known_shape(value) == known_shape(result) for value in inputs)
        return read if alike else ()
    if len(inputs) != 1 or inputs[0] is not node.inputs[0]:
        return ()
    if _keeps_channels(node) and len(read[0]) == made:
        return read
    if _flattens(node) and made % len(read[0]) == 0:
        return [np.repeat(read[0], made // len(read[0]))]
    return ()


def _axis(node: ir.Node, value: ir.Value) -> int:
    return node.attributes.get_int("axis", 1) % len(known_shape(value) or (0,))


def _keeps_channels(node: ir.Node) -> bool:
    """Whether a node of one input is homogeneous and works on each channel alone."""
    if node.op_type in _HOMOGENEOUS:
        return True
    if node.op_type == "Resize":
        mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
        return mode != "tf_crop_and_resize"  # which fills with a constant
    if node.op_type == "PRelu":
        return constant(node.inputs[1]) is not None
    if node.op_type == "Clip":
        bounds = [constant(value) for value in node.inputs[1:] if value is not None]
        return all(bound is not None and bound.item() in {0.0, np.inf, -np.inf} for bound in bounds)
    return False


def _flattens(node: ir.Node) -> bool:
    """Whether a node makes [1, C, ...] into [1, C * ...]."""
    source, result = known_shape(node.inputs[0]), known_shape(node.outputs[0])
    if node.op_type not in {"Flatten", "Reshape"} or source is None or result is None:
        return False
    return len(result) == 2 and source[0] == result[0] == 1

"""What a network costs on ncnn: layers, multiply-accumulates, and the memory of its blobs.

From the `.param` and the shapes of its blobs alone, so that a foreign `.param` can be measured by
the same rule.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from qconvert.backends.ncnn.finish import Finished
    from qconvert.formats.ncnn_param import Layer, Network

__all__ = ["Cost", "cost_of", "macs", "measure"]

_CONVOLUTIONS: Final = frozenset({
    "Convolution", "ConvolutionDepthWise", "Convolution1D", "ConvolutionDepthWise1D",
    "Convolution3D", "ConvolutionDepthWise3D",
})  # fmt: skip
_DECONVOLUTIONS: Final = frozenset({
    "Deconvolution", "DeconvolutionDepthWise", "Deconvolution1D", "DeconvolutionDepthWise1D",
    "Deconvolution3D", "DeconvolutionDepthWise3D",
})  # fmt: skip
_GATES: Final = {"LSTM": 4, "GRU": 3, "RNN": 1}
_IN_PLACE: Final = frozenset({
    "ReLU", "Clip", "PReLU", "Sigmoid", "TanH", "Swish", "HardSwish", "HardSigmoid", "Mish", "ELU",
    "CELU", "SELU", "GELU", "Softplus", "Softmax", "UnaryOp", "BatchNorm", "Scale", "Bias", "Erf",
    "Dropout", "LRN", "InstanceNorm", "GroupNorm", "LayerNorm", "RMSNorm", "Threshold",
})  # fmt: skip
"""Layers that write over their input."""
_VIEWS: Final = frozenset({"Split", "Flatten", "Reshape", "Squeeze", "ExpandDims", "Noop"})
"""Layers that give their input another name or shape."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one inference costs.

    Attributes:
        layers: Lines of the `.param`.
        macs: Multiply-accumulates.
        integer_macs: Of these on int8.
        blob_bytes: Memory for blobs at its peak, where each is given up after its last reader.
    """

    layers: int
    macs: int
    integer_macs: int
    blob_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)


def cost_of(finished: Finished) -> Cost:
    """The cost of one of our own networks."""
    shapes: dict[str, tuple[int, ...]] = {}
    drafts = dict(finished.drafts)
    for layer in finished.network.layers:
        if layer.kind == "Split":
            shapes.update(dict.fromkeys(layer.outputs, shapes[layer.inputs[0]]))
            continue
        made = drafts[layer.name].outputs
        shapes.update({name: blob.shape for name, blob in zip(layer.outputs, made, strict=True)})
    return measure(finished.network, shapes)


def measure(network: Network, shapes: Mapping[str, tuple[int, ...]]) -> Cost:
    """The cost of any network.

    Args:
        network: Its `.param`.
        shapes: Every blob → its dimensions, outermost first.
    """
    total = integer = 0
    for layer in network.layers:
        count = macs(layer, shapes)
        total += count
        if layer.int(8, 0) and layer.kind in {*_CONVOLUTIONS, "InnerProduct", *_GATES}:
            integer += count
    return Cost(len(network.layers), total, integer, _peak(network, shapes))


def macs(layer: Layer, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates of one layer; 0 for anything without a product of tensors."""
    first = shapes[layer.inputs[0]] if layer.inputs else ()
    result = shapes[layer.outputs[0]] if layer.outputs else ()
    if layer.kind in _CONVOLUTIONS:
        return layer.int(6, 0) * math.prod(result[1:])
    if layer.kind in _DECONVOLUTIONS:
        return layer.int(6, 0) * math.prod(first[1:])
    if layer.kind == "InnerProduct":
        return layer.int(2, 0) * (math.prod(result) // max(layer.int(0, 1), 1))
    if layer.kind == "MatMul":
        return math.prod(result) * first[-1]
    if layer.kind == "MultiHeadAttention":
        return _attention(layer, [shapes[name] for name in layer.inputs])
    return _recurrent(layer, first[0]) if layer.kind in _GATES else 0


def _recurrent(layer: Layer, steps: int) -> int:
    """The weight of the input and that of the state, once for each step."""
    ways = 2 if layer.int(2, 0) == 2 else 1
    hidden = layer.int(3, layer.int(0, 0)) if layer.kind == "LSTM" else layer.int(0, 0)
    state = ways * _GATES[layer.kind] * hidden * layer.int(0, 0)
    return steps * (layer.int(1, 0) + state)


def _attention(layer: Layer, inputs: list[tuple[int, ...]]) -> int:
    """Three projections, two products of all pairs, the projection back."""
    width = layer.int(0, 0)
    query, key = inputs[0], inputs[min(1, len(inputs) - 1)]
    projections = 2 * query[0] * query[1] * width + 2 * key[0] * key[1] * width
    return projections + 2 * query[0] * key[0] * width


def _peak(network: Network, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The most bytes that blobs take at one time."""
    owner: dict[str, str] = {}
    for layer in network.layers:
        for blob in layer.outputs:
            shared = layer.kind in _VIEWS or layer.kind in _IN_PLACE
            owner[blob] = owner[layer.inputs[0]] if shared and layer.inputs else blob
    last = {}
    for position, layer in enumerate(network.layers):
        for blob in layer.inputs:
            last[owner[blob]] = position
    read = {blob for layer in network.layers for blob in layer.inputs}
    for blob in owner:
        if blob not in read:  # an output stays
            last[owner[blob]] = len(network.layers)
    codes = _codes(network)
    size = {
        blob: math.prod(shapes[blob]) * (1 if blob in codes else 4) for blob in set(owner.values())
    }
    live = most = 0
    ends: dict[int, int] = {}
    for position, layer in enumerate(network.layers):
        for blob in layer.outputs:
            if owner[blob] == blob:
                live += size[blob]
                end = last.get(blob, position)
                ends[end] = ends.get(end, 0) + size[blob]
        most = max(most, live)
        live -= ends.get(position, 0)
    return most


def _codes(network: Network) -> Collection[str]:
    """Blobs of one byte an element: what requantizing convolutions make, however it is called."""
    found: set[str] = set()
    for layer in network.layers:
        requantizes = layer.kind in _CONVOLUTIONS and layer.int(8, 0) > 100
        passes = layer.kind in {*_VIEWS, "ReLU"} and any(blob in found for blob in layer.inputs)
        if requantizes or passes:
            found.update(layer.outputs)
    return found

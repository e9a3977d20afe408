"""Activations become part of the layer in front: parameters 9 and 10 of the convolution family.

    0 none   1 ReLU   2 leaky ReLU [slope]   3 Clip [min, max]   4 Sigmoid   5 Mish
    6 HardSwish [alpha, beta]

Reference: Tencent/ncnn src/layer/fused_activation.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from qconvert.backends.ncnn.net import Draft, Net
    from qconvert.formats.ncnn_param import Param

__all__ = ["FUSIBLE", "bounds_of", "fuse_activations", "set_bounds"]

FUSIBLE: Final = frozenset(
    {
        "Convolution",
        "ConvolutionDepthWise",
        "Convolution1D",
        "ConvolutionDepthWise1D",
        "Convolution3D",
        "ConvolutionDepthWise3D",
        "Deconvolution",
        "DeconvolutionDepthWise",
        "Deconvolution1D",
        "DeconvolutionDepthWise1D",
        "Deconvolution3D",
        "DeconvolutionDepthWise3D",
        "InnerProduct",
    }
)
"""Layers with parameters 9 and 10."""

_MAX: Final = float(np.finfo(np.float32).max)


def fuse_activations(net: Net) -> None:
    """Fold every activation whose input has no other reader into the layer that makes it."""
    for layer in net:
        fused = _as_params(layer)
        if fused is None:
            continue
        links = net.links()
        source = links.producer(layer.input)
        if source is None or source.kind not in FUSIBLE or source.int(9):
            continue
        if links.only_reader(layer.input) is None:
            continue
        source.params.update(fused)
        source.outputs[0] = layer.output
        source.details.setdefault("activation", layer.name)
        net.remove(layer)


def _as_params(layer: Draft) -> dict[int, Param] | None:
    """Parameters 9 and 10 for an activation layer."""
    match layer.kind:
        case "ReLU":
            slope = layer.float(0)
            return {9: 2, 10: (slope,)} if slope else {9: 1}
        case "Clip":
            return {9: 3, 10: (layer.float(0), layer.float(1))}
        case "Sigmoid":
            return {9: 4}
        case "Mish":
            return {9: 5}
        case "HardSwish":
            return {9: 6, 10: (layer.float(0), layer.float(1))}
        case _:
            return None


def bounds_of(layer: Draft) -> tuple[float, float] | None:
    """The range an activation limits its result to; None when it is none of ours to narrow."""
    if layer.kind in {"ReLU", "Clip"}:
        fused = _as_params(layer) or {}
    else:
        fused = {key: layer.params[key] for key in (9, 10) if key in layer.params}
    kind = fused.get(9, 0)
    if kind == 0:
        return -_MAX, _MAX
    if kind == 1:
        return 0.0, _MAX
    limits = fused.get(10)
    if kind == 3 and isinstance(limits, tuple):
        return float(limits[0]), float(limits[1])
    return None


def set_bounds(layer: Draft, bounds: tuple[float, float]) -> None:
    """Narrow the range of an activation to `bounds` as well; `bounds_of` must not be None."""
    have = bounds_of(layer)
    assert have is not None
    # clip(clip(x, a, b), c, d) = clip(x, clip(a, c, d), clip(b, c, d))
    low, high = (min(max(edge, bounds[0]), bounds[1]) for edge in have)
    if layer.kind in {"ReLU", "Clip"}:
        layer.kind = "Clip"
        layer.params = {0: low, 1: high}
    else:
        layer.params.update({9: 3, 10: (low, high)})

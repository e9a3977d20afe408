"""[route], [shortcut], [scale_channels], [sam] and [implicit]: layers that read earlier layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.frontends.darknet.layer import check_size, lazy
from qconvert.frontends.darknet.ops import converts
from qconvert.frontends.darknet.ops.activation import activate
from qconvert.graph import shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.frontends.darknet.layer import Layer
    from qconvert.quant import F32

__all__ = ["channel_range"]

_EPSILON: Final = np.float32(1e-4)


@converts("route")
def _route(layer: Layer) -> ir.Value:
    """[route]: the channels of earlier layers one after the other; of each, one of `groups` parts.

    One layer without groups is that layer itself.
    """
    section = layer.section
    indices = section.integers("layers")
    if not indices:
        raise section.wrong(f"layer '{layer.name}' has no layers= to join", "it needs at least one")
    groups = section.integer("groups", 1, low=1)
    group = section.integer("group_id", 0, low=0, high=groups - 1)
    sources = [layer.earlier(index, "layers") for index in indices]
    sides = {shape_of(value)[2:] for value in sources}
    if len(sides) > 1:
        if () not in sides:
            raise section.wrong(
                f"layer '{layer.name}' joins images of different sizes",
                ", ".join("x".join(map(str, shape_of(v))) for v in sources[:8]),
                key="layers",
            )
        sources = [layer.vector(value) for value in sources]
    parts = [_part(layer, value, groups, group, place) for place, value in enumerate(sources)]
    if len(parts) == 1:
        return parts[0]
    channels = sum(shape_of(value)[1] for value in parts)
    return layer.op("Concat", parts, (1, channels, *shape_of(parts[0])[2:]), {"axis": 1})


def _part(layer: Layer, x: ir.Value, groups: int, group: int, place: int) -> ir.Value:
    """One of `groups` equal runs of channels."""
    if groups == 1:
        return x
    channels = shape_of(x)[1]
    if channels % groups:
        raise layer.section.wrong(
            f"{groups} groups do not divide {channels} channels",
            f"layer '{layer.name}'",
            key="groups",
        )
    size = channels // groups
    return channel_range(layer, x, group * size, (group + 1) * size, f"group_{place}")


def channel_range(layer: Layer, x: ir.Value, begin: int, end: int, part: str) -> ir.Value:
    """The channels [begin, end)."""
    limits = [
        layer.constant(f"{part}_{name}", np.array([value], dtype=np.int64))
        for name, value in (("begin", begin), ("end", end), ("axis", 1))
    ]
    return layer.op("Slice", [x, *limits], (1, end - begin, *shape_of(x)[2:]), part=part)


@converts("shortcut")
def _shortcut(layer: Layer) -> ir.Value:
    """[shortcut]: the sum of the layer before and of earlier layers, weighted or not.

    The result has the shape of the layer before. Channels that the other lacks stay as they are;
    those that it has beyond are left out (shortcut_cpu in src/blas.c of both, and
    shortcut_multilayer_cpu in AlexeyAB's).
    """
    section = layer.section
    indices = section.integers("from")
    if not indices:
        raise section.wrong(f"layer '{layer.name}' has no from= to add", "it needs at least one")
    x = layer.x
    others = [
        _like(layer, layer.earlier(index, "from"), x, place) for place, index in enumerate(indices)
    ]
    kind = section.text("weights_type", "none")
    alpha, beta = section.number("alpha", 1.0), section.number("beta", 1.0)
    if kind != "none":
        factors: Sequence[ir.Value | None] = _weights(layer, kind, len(others))
    elif (alpha, beta) != (1.0, 1.0):
        factors = _alpha_beta(layer, indices, alpha, beta)
    else:
        factors = [None] * (1 + len(others))
    total = _times(layer, x, factors[0], 0)
    for place, (other, factor) in enumerate(zip(others, factors[1:], strict=True), start=1):
        term = _times(layer, other, factor, place)
        last = place == len(others)
        total = layer.op("Add", [total, term], shape_of(x), part="" if last else f"sum_{place}")
    return activate(layer, total, default="linear")


def _times(layer: Layer, x: ir.Value, factor: ir.Value | None, place: int) -> ir.Value:
    """`x` times a constant, if there is one."""
    if factor is None:
        return x
    return layer.op("Mul", [x, factor], shape_of(x), part=f"weighted_{place}")


def _weights(layer: Layer, kind: str, others: int) -> list[ir.Value | None]:
    """Stored weights, one row for each summand, the layer before first; normalized at once."""
    section = layer.section
    rule = section.text("weights_normalization", "none")
    if kind not in {"per_feature", "per_layer", "per_channel"}:
        raise section.wrong(
            f"weights_type={kind} is not known",
            "it is none, per_feature, per_layer or per_channel",
            key="weights_type",
        )
    if rule not in {"none", "relu", "avg_relu", "softmax"}:
        raise section.wrong(
            f"weights_normalization={rule} is not known",
            "it is none, relu, avg_relu or softmax",
            key="weights_normalization",
        )
    shape = shape_of(layer.x)
    channels = shape[1] if kind == "per_channel" else 1
    stored = layer.take((others + 1, channels), "weight")
    each = (1, channels, *[1] * (len(shape) - 2))

    def row(place: int) -> F32:
        weights: F32 = _normalized(stored.numpy(), rule)[place].reshape(each)
        return weights

    return [
        layer.initializer(f"weight_{place}", lazy(lambda place=place: row(place), each))  # type: ignore[misc] # mypy cannot infer a lambda with a default
        for place in range(others + 1)
    ]


def _normalized(weights: F32, rule: str) -> F32:
    """Weights [summands, channels] made to add up to nearly 1 (shortcut_multilayer_cpu)."""
    if rule == "none":
        return weights
    if rule == "softmax":
        positive = np.exp(weights - weights.max(axis=0))
    else:
        positive = np.maximum(weights, 0)
    quotient: F32 = positive / (positive.sum(axis=0) + _EPSILON)
    return quotient


def _alpha_beta(
    layer: Layer, indices: Sequence[int], alpha: float, beta: float
) -> list[ir.Value | None]:
    """Pjreddie's alpha for the layer before and beta for the other, where both have channels."""
    section = layer.section
    other = shape_of(layer.image(layer.earlier(indices[0], "from")))
    shape = shape_of(layer.x)
    if len(indices) > 1 or (len(shape) == 4 and other[2:] != shape[2:]):
        raise section.wrong(
            f"layer '{layer.name}' has alpha or beta with more than one source or size",
            "pjreddie's Darknet adds one source, and only the pixels that meet are multiplied",
        )
    common = min(other[1], shape[1])
    first = np.ones((1, shape[1], *[1] * (len(shape) - 2)), dtype=np.float32)
    first[:, :common] = alpha
    return [
        layer.constant("alpha", first),
        layer.constant("beta", np.array(beta, dtype=np.float32)),
    ]


def _like(layer: Layer, other: ir.Value, x: ir.Value, place: int) -> ir.Value:
    """`other` cut and padded with zeros to the shape of `x`."""
    shape, given = shape_of(x), shape_of(other)
    if len(shape) != len(given):
        other = layer.vector(other) if len(shape) == 2 else layer.image(other)
        given = shape_of(other)
    if given == shape:
        return other
    if given[2:] != shape[2:]:
        other = _same_size(layer, other, shape, place)
    channels = shape_of(other)[1]
    if channels > shape[1]:
        other = channel_range(layer, other, 0, shape[1], f"first_{place}")
    return _pad(layer, other, shape, f"padded_{place}")


def _pad(layer: Layer, x: ir.Value, shape: Sequence[int], part: str) -> ir.Value:
    """Zeros at the end of every axis, up to `shape`."""
    missing = [want - have for want, have in zip(shape, shape_of(x), strict=True)]
    if not any(missing):
        return x
    pads = layer.constant(f"{part}_pads", np.array([0] * len(shape) + missing, dtype=np.int64))
    return layer.op("Pad", [x, pads], shape, part=part)


def _same_size(layer: Layer, x: ir.Value, shape: Sequence[int], place: int) -> ir.Value:
    """Pjreddie's rule for other sizes: every n-th pixel, or zeros between the pixels."""
    _, channels, height, width = shape_of(x)
    stride, sample = width // shape[3], shape[3] // width
    if stride != height // shape[2] or sample != shape[2] // height:
        raise layer.section.wrong(
            f"layer '{layer.name}' adds {width} x {height} to {shape[3]} x {shape[2]} pixels",
            "both sides must have one ratio",
            key="from",
        )
    rows, columns = min(height, shape[2]), min(width, shape[3])
    step = max(stride, 1)
    limits = [
        layer.constant(f"every_{place}_{name}", np.array(values, dtype=np.int64))
        for name, values in (
            ("begin", [0, 0]),
            ("end", [(rows - 1) * step + 1, (columns - 1) * step + 1]),
            ("axes", [2, 3]),
            ("steps", [step, step]),
        )
    ]
    picked = layer.op("Slice", [x, *limits], (1, channels, rows, columns), part=f"every_{place}")
    if sample <= 1:
        return _pad(layer, picked, (1, channels, *shape[2:]), f"edge_{place}")
    spread = layer.reshape(picked, (1, channels, rows, 1, columns, 1), f"split_{place}")
    zeros = _pad(layer, spread, (1, channels, rows, sample, columns, sample), f"spread_{place}")
    full = (1, channels, rows * sample, columns * sample)
    return _pad(
        layer,
        layer.reshape(zeros, full, f"grid_{place}"),
        (1, channels, *shape[2:]),
        f"edge_{place}",
    )


@converts("scale_channels")
def _scale_channels(layer: Layer) -> ir.Value:
    """[scale_channels]: an earlier layer, its channels (or pixels) times this input."""
    x, other = layer.image(), layer.image(_source(layer))
    shape = shape_of(other)
    expected = (1, 1, *shape[2:]) if layer.section.integer("scale_wh", 0) else (1, shape[1], 1, 1)
    if shape_of(x) != expected:
        raise layer.section.wrong(
            f"layer '{layer.name}' scales {list(shape)} by {list(shape_of(x))}",
            f"it takes {list(expected)}",
        )
    return activate(layer, layer.op("Mul", [other, x], shape), default="linear")


@converts("sam")
def _sam(layer: Layer) -> ir.Value:
    """[sam]: this input times an earlier layer, element by element."""
    other = _source(layer)
    if shape_of(other) != shape_of(layer.x):
        raise layer.section.wrong(
            f"layer '{layer.name}' multiplies {list(shape_of(layer.x))} by {list(shape_of(other))}",
            "both must have one shape",
        )
    return activate(layer, layer.op("Mul", [layer.x, other], shape_of(other)), default="linear")


def _source(layer: Layer) -> ir.Value:
    """The one layer that `from` names."""
    indices = layer.section.integers("from")
    if len(indices) != 1:
        raise layer.section.wrong(
            f"layer '{layer.name}' needs one layer in from=", f"it has {len(indices)}", key="from"
        )
    return layer.earlier(indices[0], "from")


@converts("implicit", ignores="mean std", refuses={"dontload": "its weights would be random"})
def _implicit(layer: Layer) -> ir.Value:
    """[implicit]: trained numbers [1, filters, atoms, 1] that no input changes."""
    section = layer.section
    filters = section.integer("filters", 128, low=1)
    atoms = section.integer("atoms", 1, low=1)
    shape = (1, filters, atoms, 1)
    check_size(shape, f"layer '{layer.name}'", section.place)
    return layer.initializer("weight", layer.take(shape, "weight"))

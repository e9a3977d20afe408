"""Layers as the search sees them at a stop of the walk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qconvert.calibration.easyquant.columns import bias, geometry, units
from qconvert.calibration.easyquant.nodes import activation_after
from qconvert.calibration.easyquant.reader import Reader, mean_cosine
from qconvert.graph import constant
from qconvert.quant import dequantize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qconvert.calibration.easyquant.walk import Walk
    from qconvert.plan import PlannedLayer
    from qconvert.quant import F32, QParams

__all__ = ["made_reader", "store", "whole_cosine"]


def made_reader(
    walk: Walk,
    layer: PlannedLayer,
    generator: np.random.Generator | None,
    *,
    positions: int = 0,
    samples: Sequence[int] | None = None,
) -> Reader | None:
    """A layer's columns and targets; None where it is no plain linear layer.

    Args:
        walk: Stopped at the layer's input.
        layer: The layer.
        generator: Picks output positions; None: all of them.
        positions: How many to pick in all.
        samples: Which samples to look at; None: all.
    """
    node = walk.nodes[layer.node]
    shape = geometry(node) if layer.weight is not None else None
    weight = constant(node.inputs[1])
    params = walk.encodings.weights.get(layer.weight or "")
    offset = bias(node) if shape is not None else None
    if shape is None or weight is None or params is None or offset is None or not params.symmetric:
        return None
    codes = walk.encodings.rounded.get(layer.weight or "")
    seen, exact = walk.seen(layer.input), walk.exact(layer.output)
    indices = range(len(seen)) if samples is None else samples
    per = max(1, min(shape.positions, positions // len(indices)))
    fields, goals = [], []
    for index in indices:
        at = np.arange(shape.positions)
        if generator is not None:
            at = np.sort(generator.permutation(at)[:per])
        fields.append(shape.columns(seen[index], at))
        goals.append(shape.outputs(exact[index], at))
    entry = units(layer, shape, params.scale.size)
    scales = params.scale.reshape(-1)
    return Reader(
        layer=layer,
        geometry=shape,
        matrix=np.ascontiguousarray(shape.matrix(weight), np.float32),
        bias=offset,
        activation=activation_after(node),
        columns=np.concatenate(fields, axis=2),
        target=np.concatenate(goals, axis=1),
        samples=len(indices),
        unit=np.resize(entry, len(offset)),
        entry=entry,
        scales=np.array([scales[entry == u].max() for u in range(entry.max() + 1)], np.float32),
        top=params.high,
        given=None if codes is None else np.asarray(shape.matrix(dequantize(codes, params))),
    )


def store(walk: Walk, reader: Reader) -> None:
    """Write the scales of a reader into the walk's encodings."""
    name = reader.layer.weight
    assert name is not None
    params = walk.encodings.weights[name]
    scale = reader.scales[reader.entry].reshape(params.scale.shape)
    walk.encodings.weights[name] = replace(params, scale=scale)


def whole_cosine(
    walk: Walk, layer: PlannedLayer, params: QParams, *, behind_activation: bool = True
) -> float:
    """Mean cosine of a layer's whole output over all samples.

    Args:
        walk: Stopped at the layer's input, its weight encoded.
        layer: The layer.
        params: How its input is quantized.
        behind_activation: Compare what the activation function behind the layer, if one alone
            reads it, makes of the output.
    """
    exact = walk.exact(layer.output)
    behind = activation_after(walk.nodes[layer.node]) if behind_activation else None
    products = []
    for index, row in enumerate(walk.rows(layer, params)):
        pair = [row, np.asarray(exact[index])]
        if behind is not None:
            pair = [behind(_by_channel(y)) for y in pair]
        left, right = (np.ravel(y) for y in pair)
        products.append((left @ right, left @ left, right @ right))
    return mean_cosine(*np.array(products, np.float64).T)


def _by_channel(y: F32) -> F32:
    """One sample's output as [channels, positions]."""
    return y.reshape(y.shape[1], -1) if y.ndim > 2 else y.reshape(-1, y.shape[-1]).T

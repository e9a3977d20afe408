"""What a search does beyond scales: weights fitted again, codes by output error, mean shifts."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.calibration.easyquant.columns import bias
from qconvert.calibration.easyquant.fake import fake
from qconvert.calibration.easyquant.reader import shares
from qconvert.calibration.easyquant.views import whole_cosine
from qconvert.calibration.easyquant.weights import Gram
from qconvert.calibration.refine.bias import mean_shift
from qconvert.calibration.refine.refit import Moments, refit
from qconvert.calibration.refine.rounding import round_rows
from qconvert.graph import constant

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    import onnx_ir as ir

    from qconvert.calibration.easyquant.reader import Reader
    from qconvert.calibration.easyquant.walk import Walk
    from qconvert.plan import PlannedLayer
    from qconvert.quant import F32, QParams

__all__ = ["choose_codes", "correct_bias", "fit_again", "keep"]

_FEWEST: Final = 8
"""Samples below which two halves of them say too little of each other."""

_DEEPEST: Final = 2304
"""Inputs per output beyond which the systems of equations take too long (time grows cubically)."""

_VALUES: Final = 1 << 24
"""Values of columns that are kept at a time."""


def fit_again(walk: Walk, reader: Reader, params: QParams, positions: int, seed: int) -> bool:
    """Let the float weight and bias of `reader` make up for the rounding of its input.

    Args:
        walk: Stopped at the layer's input.
        reader: The layer; `matrix` and `bias` change.
        params: How its input is quantized.
        positions: Output positions to look at, over all samples.
        seed: For the choice of positions.

    Returns:
        Whether anything changed.
    """
    groups, rows, depth = reader.matrix.shape
    if reader.samples < _FEWEST or depth > _DEEPEST:
        return False
    per = min(positions, _VALUES // (groups * depth)) // reader.samples
    data = _columns(walk, reader, params, max(1, min(per, reader.geometry.positions)), seed)
    weights = shares(reader.norms)

    known: list[Moments] = []

    def halves(matrix: F32, offset: F32) -> tuple[Moments, Moments]:
        """Moments of the samples of even and of odd number."""

        def parts(start: int) -> Iterator[tuple[F32, F32, float]]:
            for (x, goal), weight in zip(data[start::2], weights[start::2].tolist(), strict=True):
                left = goal - reader.output(matrix, x, offset).reshape(groups, rows, -1)
                yield x, left, weight

        if not known:  # columns stay what they are: their products are taken once
            known.extend(
                reduce(add, (Moments.of(*part) for part in parts(side))) for side in (0, 1)
            )
            return known[0], known[1]
        return known[0].having(parts(0)), known[1].having(parts(1))

    biased = _own_bias(walk.nodes[reader.layer.node]) is not None
    found = refit(reader.matrix, reader.bias, halves, biased=biased)
    if found is None:
        return False
    reader.matrix, reader.bias = found
    return True


def _columns(
    walk: Walk, reader: Reader, params: QParams, per: int, seed: int
) -> list[tuple[F32, F32]]:
    """Of each sample: quantized columns [G, K, P] and the target behind the activation."""
    seen, exact = walk.seen(reader.layer.input), walk.exact(reader.layer.output)
    generator = np.random.default_rng([seed, reader.samples, per])
    shape, found = reader.geometry, []
    for index in range(reader.samples):
        at = np.sort(generator.permutation(shape.positions)[:per])
        goal = reader.behind(shape.outputs(exact[index], at))
        x = fake(shape.columns(seen[index], at), params)
        found.append((x, goal.reshape(reader.matrix.shape[0], -1, len(at))))
    return found


def choose_codes(walk: Walk, reader: Reader, params: QParams) -> None:
    """Choose codes by output error; the whole output decides whether they stay."""
    moments = Gram(reader, params).moments()
    if moments is None:
        return
    name, layer = str(reader.layer.weight), reader.layer
    before, held = whole_cosine(walk, layer, params), walk.encodings.rounded.get(name)
    scales = reader.rows(reader.scales)[:, :, 0]
    codes = np.stack(
        [
            round_rows(rows, scale, second, reader.top)
            for rows, scale, second in zip(reader.matrix, scales, moments, strict=True)
        ]
    )
    _store_codes(walk, reader, codes)
    if whole_cosine(walk, layer, params) <= before:
        del walk.encodings.rounded[name]
        if held is not None:
            walk.encodings.rounded[name] = held


def keep(walk: Walk, reader: Reader) -> None:
    """Write the changed weight and bias of `reader` into the walk's encodings."""
    codes = np.rint(reader.matrix / reader.rows(reader.scales))
    _store_codes(walk, reader, np.clip(codes, -reader.top, reader.top))
    held = _own_bias(walk.nodes[reader.layer.node])
    if held is not None:
        stored = constant(held)
        assert stored is not None
        walk.encodings.biases[str(held.name)] = reader.bias.reshape(stored.shape)


def _store_codes(walk: Walk, reader: Reader, codes: npt.NDArray[np.floating]) -> None:
    """Put explicit codes [G, O/G, K] into the walk's encodings."""
    name = str(reader.layer.weight)
    chosen = reader.geometry.tensor(codes)
    narrow = walk.encodings.weights[name].bits <= 8
    walk.encodings.rounded[name] = chosen.astype(np.int8) if narrow else chosen.astype(np.int16)


def _own_bias(node: ir.Node) -> ir.Value | None:
    """The bias of a linear layer, where it is a constant of its own with a number a channel."""
    held = node.inputs[2] if len(node.inputs) > 2 else None
    stored, offset = constant(held), bias(node)
    if held is None or stored is None or offset is None or len(list(held.uses())) != 1:
        return None
    return held if stored.size == len(offset) else None


def correct_bias(walk: Walk, layer: PlannedLayer) -> None:
    """Take the mean shift of a layer's output back by its bias, where it has one of its own."""
    node = walk.nodes[layer.node]
    held = _own_bias(node)
    if held is None:
        return
    stored = constant(held)
    assert stored is not None
    offset = walk.encodings.biases.get(str(held.name), stored)
    exact, seen = walk.exact(layer.output), walk.seen(layer.output)
    axis = -1 if layer.op_type in {"Gemm", "MatMul"} else 1
    shift = mean_shift(((exact[i], seen[i]) for i in range(len(exact))), axis)
    shape = [1] * exact[0].ndim
    shape[axis] = -1
    corrected = offset.astype(np.float32).reshape(-1) + shift
    walk.encodings.biases[str(held.name)] = corrected.reshape(stored.shape)
    walk.replace(layer.output, (seen[i] + shift.reshape(shape) for i in range(len(seen))))

"""Make encodings fit a plan: complete, of the right width, and as fine as the target allows.

One calibration serves many targets. Where a target has fewer scales than were found, the coarser
scale is the one that represents everything the finer ones did: the largest of them. Explicit codes
were chosen for the finer scale: what they stand for is rounded once more. What leaves an integer
graph was never clipped: it gets the same range at the width that the target has there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qconvert.errors import CalibrationError
from qconvert.quant import (
    Encodings,
    QParams,
    asymmetric,
    dequantize,
    is_power_of_two,
    powers_around,
    quantize,
    symmetric,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from qconvert.plan import Plan, PlannedLayer

    Codes = npt.NDArray[np.int8] | npt.NDArray[np.int16]

__all__ = ["fit"]


def fit(plan: Plan, encodings: Encodings) -> Encodings:
    """Encodings for exactly what `plan` names.

    Args:
        plan: What will be quantized.
        encodings: What calibration found, for this plan or a wider one.

    Returns:
        New encodings; the arrays are shared where nothing had to change. Observed values that
        have none are left out: they only tell what is known.

    Raises:
        CalibrationError: If something the plan names has no encoding (all are listed), or one of
            another width or kind.
    """
    encodings = replace(encodings, activations=_results_as_wide(plan, encodings.activations))
    _require(plan, encodings)
    _require_kind(plan, encodings)
    weights, rounded = {}, {}
    for layer in plan.layers:
        name = layer.weight
        if name is None or name in weights:
            continue
        found = encodings.weights[name]
        weights[name] = _coarsen(found, layer)
        if name in encodings.rounded:
            codes = encodings.rounded[name]
            same = weights[name] is found or (found.scale == weights[name].scale).all()
            rounded[name] = codes if same else _again(codes, found, weights[name])
    given = encodings.activations
    activations = {name: given[name] for name in plan.activations}
    activations |= {name: given[name] for name in plan.observed if name in given}
    for group in plan.ties:
        members = [name for name in group if name in activations]
        if members:
            parts = [activations[name] for name in members]
            activations.update(dict.fromkeys(members, _join(parts, power_of_two=plan.power_of_two)))
    return Encodings(activations, weights, rounded, encodings.biases)


def _again(codes: Codes, found: QParams, wanted: QParams) -> Codes:
    """Codes of another scale for what `codes` of the scale found stand for."""
    fresh = quantize(dequantize(codes, found), wanted)
    return fresh.astype(np.int8) if wanted.bits <= 8 else fresh.astype(np.int16)


def _results_as_wide(plan: Plan, given: dict[str, QParams]) -> dict[str, QParams]:
    """`given`, with what leaves the integer graph at its own width."""
    wide = dict(given)
    for name, spec in plan.activations.items():
        params = given.get(name)
        if params is None or not spec.result or params.bits == spec.bits:
            continue
        high = float(params.threshold)
        if params.symmetric:
            found = symmetric(high, bits=spec.bits)
        else:
            low = float(params.scale) * float(params.low - params.zero_point)
            found = asymmetric(low, high, bits=spec.bits, signed=params.signed)
        wide[name] = _to_power(found) if plan.power_of_two else found
    return wide


def _require(plan: Plan, encodings: Encodings) -> None:
    """Refuse encodings that lack something or are of another width."""
    wanted = {layer.weight: layer.weight_bits for layer in plan.layers if layer.weight is not None}
    missing = [name for name in plan.activations if name not in encodings.activations]
    missing += [name for name in wanted if name not in encodings.weights]
    if missing:
        raise CalibrationError(
            f"{len(missing)} tensors have no encoding",
            at=", ".join(missing),
            why="the encodings were made for another model, target or set of float layers",
            fix="calibrate this model again, with the same options",
        )
    found = {
        name: (spec.bits, encodings.activations[name].bits)
        for name, spec in plan.activations.items()
    }
    found.update({name: (bits, encodings.weights[name].bits) for name, bits in wanted.items()})
    unlike = [
        f"{name} ({has} bits, not {wants})" for name, (wants, has) in found.items() if wants != has
    ]
    if unlike:
        raise CalibrationError(
            f"{len(unlike)} tensors have an encoding of another width",
            at=", ".join(unlike),
            why="a scale that is good at one width is not at another",
            fix="calibrate with the same --bits, --weight-bits, --activation-bits, --layer-bits",
        )


def _require_kind(plan: Plan, encodings: Encodings) -> None:
    """Refuse exponents for uniform codes, the reverse, and scales that are no powers of two."""
    for layer in plan.layers:
        if layer.weight is not None and encodings.weights[layer.weight].log2 != layer.log2:
            asked, found = ("exponents", "uniform") if layer.log2 else ("uniform", "exponents")
            raise CalibrationError(
                f"the encodings have another kind of codes for '{layer.weight}'",
                why=f"its codes are {found}, not {asked}",
                fix="calibrate and convert with the same --log2-weights and widths",
            )
    if not plan.power_of_two:
        return
    entries = {name: encodings.activations[name] for name in plan.activations}
    entries |= {
        layer.weight: encodings.weights[layer.weight] for layer in plan.layers if layer.weight
    }
    others = [name for name, params in entries.items() if not is_power_of_two(params.scale)]
    if others:
        raise CalibrationError(
            f"{len(others)} tensors have scales that are no powers of two",
            at=", ".join(others),
            why="the encodings were found without --power-of-two",
            fix="calibrate with --power-of-two",
        )


def _coarsen(params: QParams, layer: PlannedLayer) -> QParams:
    """One scale for every group of channels, or for all, where the plan wants it so."""
    if layer.granularity == "channel" or params.axis is None:
        return params
    if layer.granularity == "tensor":
        return _join(_channels(params))
    rows = [_join(part) for part in _runs(_channels(params), layer.groups)]
    size = params.scale.size // layer.groups
    scale = np.repeat(np.asarray([row.scale for row in rows], np.float32), size)
    zero_point = np.repeat(np.asarray([row.zero_point for row in rows], np.int32), size)
    if (scale == params.scale).all() and (zero_point == params.zero_point).all():
        return params
    return replace(params, scale=scale, zero_point=zero_point)


def _channels(params: QParams) -> list[QParams]:
    """Per-channel parameters, one by one."""
    pairs = zip(params.scale, params.zero_point, strict=True)
    return [
        replace(params, scale=np.asarray(scale), zero_point=np.asarray(zero), axis=None)
        for scale, zero in pairs
    ]


def _runs(parts: Sequence[QParams], groups: int) -> list[Sequence[QParams]]:
    size = len(parts) // groups
    return [parts[start : start + size] for start in range(0, size * groups, size)]


def _join(parts: Sequence[QParams], *, power_of_two: bool = False) -> QParams:
    """Parameters of one width that represent everything any of `parts` does."""
    first = parts[0]
    if all(part.scale == first.scale and part.zero_point == first.zero_point for part in parts):
        return first
    if all(part.symmetric for part in parts):
        return max(parts, key=lambda part: float(part.scale))
    low = min(float(part.scale) * float(part.low - part.zero_point) for part in parts)
    high = max(float(part.threshold) for part in parts)
    signed = any(part.signed for part in parts)
    joined = asymmetric(low, high, bits=first.bits, signed=signed)
    return _to_power(joined) if power_of_two else joined


def _to_power(params: QParams) -> QParams:
    """Parameters of one scale with the next power of two, which represent the same range."""
    scale = powers_around(params.scale)[1]
    if params.symmetric:
        return replace(params, scale=scale)
    low = float(params.scale) * float(params.low - params.zero_point)
    lowest = np.rint(params.low - low / scale)
    zero_point = np.asarray(np.clip(lowest, params.low, params.high), np.int32)
    return replace(params, scale=scale, zero_point=zero_point)

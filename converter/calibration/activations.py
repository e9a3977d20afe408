"""Scales for the planned activations: watches them, then asks the strategy for limits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from qconvert.calibration.feed import Feed
from qconvert.calibration.methods.table import STRATEGIES, Statistics, parameters
from qconvert.calibration.observers import (
    Histogram,
    LinearHistogram,
    MovingRange,
    Observer,
    Range,
)
from qconvert.errors import CalibrationError
from qconvert.quant import QParams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from qconvert.calibration.methods.table import First, Strategy
    from qconvert.calibration.settings import Settings
    from qconvert.dataset.reader import Dataset
    from qconvert.plan import Plan
    from qconvert.progress import Progress
    from qconvert.report import Report

__all__ = ["before_layers", "find", "groups_of"]

_KEEP: Final = 128 << 20
"""Bytes of activations kept from the first pass, which a second one need not compute."""

Seen = TypeVar("Seen", bound=Observer)


def find(
    model: ir.Model,
    plan: Plan,
    dataset: Dataset,
    settings: Settings,
    report: Report,
    progress: Progress,
) -> dict[str, QParams]:
    """Find parameters for every activation of `plan`, quantized or observed.

    Args:
        model: The optimized float model.
        plan: What is wanted; tied activations get equal parameters.
        dataset: Calibration data.
        settings: `method` is a threshold strategy.
        report: Is told of activations that are 0 throughout.
        progress: Advances once per sample and pass.

    Returns:
        Value name → parameters, in the plan's order.

    Raises:
        CalibrationError: If a value is not finite, or fixed scales contradict each other.
    """
    specs = plan.scaled
    groups = groups_of(plan)
    strategies = _strategies(model, plan, groups, settings)
    measured = {
        name: group
        for name, group in groups.items()
        if all(specs[member].fixed_scale is None for member in group)
    }
    known: dict[str, Statistics] = {}
    if measured:
        known = _watch(model, measured, strategies, dataset, settings, progress)
    found: dict[str, QParams] = {}
    for leader, group in groups.items():
        spec = specs[leader]
        if leader not in known:
            params = _fixed(group, plan)
        elif known[leader].range.magnitude == 0.0:
            _warn_dead(group, plan, report)
            params = parameters((0.0, 0.0), spec)
        else:
            params = parameters(strategies[leader].limits(known[leader], spec, settings), spec)
        found.update(dict.fromkeys(group, params))
    return {name: found[name] for name in specs}


def groups_of(plan: Plan) -> dict[str, tuple[str, ...]]:
    """First member → all members, for ties and for activations on their own."""
    group_of: dict[str, list[str]] = {name: [name] for name in plan.scaled}
    for tie in plan.ties:
        members = [name for name in tie if name in group_of]
        for name in members[1:]:
            whole, part = group_of[members[0]], group_of[name]
            if whole is not part:
                whole.extend(part)
                group_of.update(dict.fromkeys(part, whole))
    return {group[0]: tuple(group) for group in group_of.values()}


def _strategies(
    model: ir.Model, plan: Plan, groups: Mapping[str, tuple[str, ...]], settings: Settings
) -> dict[str, Strategy]:
    """First member of each group → how its limits are found.

    What comes after the last quantized layer (logits, boxes) is never clipped: no later layer
    averages the error out, and the largest values are the ones that decide.
    """
    feeding = before_layers(model, plan)
    return {
        leader: STRATEGIES[settings.method if feeding.intersection(group) else "minmax"]
        for leader, group in groups.items()
    }


def before_layers(model: ir.Model, plan: Plan) -> set[str]:
    """Names of the values that a quantized layer depends on."""
    feeding = {layer.input for layer in plan.layers}
    for node in reversed(list(model.graph)):
        if any(value.name in feeding for value in node.outputs):
            feeding.update(str(value.name) for value in node.inputs if value is not None)
    return feeding


def _watch(
    model: ir.Model,
    groups: Mapping[str, tuple[str, ...]],
    strategies: Mapping[str, Strategy],
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
) -> dict[str, Statistics]:
    """First member of each group → the statistics of the whole group."""
    names = [name for group in groups.values() for name in group]
    again = {
        name
        for leader, group in groups.items()
        for name in group
        if strategies[leader].bins is not None
    }
    passes = 2 if again else 1
    with Feed(model, names, settings.threads, again=again, room=_KEEP) as feed:
        progress.start(f"calibrating ({settings.method})", passes * len(dataset))
        first = {
            name: strategies[leader].observer(settings)
            for leader, group in groups.items()
            for name in group
        }
        feed.observe(dataset, first, progress)
        known = {
            leader: _statistics(_joined([first[name] for name in group]))
            for leader, group in groups.items()
        }
        if again:
            histograms = _histograms(known, strategies)
            shown = {name: histograms[leader] for leader in histograms for name in groups[leader]}
            feed.observe_again(dataset, shown, progress)
            known = {
                leader: replace(statistics, magnitudes=histograms.get(leader))
                for leader, statistics in known.items()
            }
        progress.finish()
    return known


def _histograms(
    known: Mapping[str, Statistics], strategies: Mapping[str, Strategy]
) -> dict[str, LinearHistogram]:
    """Empty histograms over the ranges of a first pass, for the strategies that want one."""
    wanted = {leader: strategies[leader].bins for leader in known}
    return {
        leader: LinearHistogram(known[leader].range.magnitude, np.zeros(bins, np.int64))
        for leader, bins in wanted.items()
        if bins is not None and known[leader].range.magnitude > 0
    }


def _joined(observers: Sequence[Seen]) -> Seen:
    """One observer that saw what all of them saw."""
    whole = observers[0]
    for other in observers[1:]:
        whole.join(other)
    return whole


def _statistics(observer: First) -> Statistics:
    """What is known from the first pass."""
    match observer:
        case Range():
            return Statistics(observer)
        case MovingRange():
            return Statistics(Range(*observer.average))
        case Histogram():
            return Statistics(observer.range, histogram=observer)


def _fixed(group: tuple[str, ...], plan: Plan) -> QParams:
    """Parameters with the scale the user gave for a member of `group`."""
    specs = plan.scaled
    scales = {name: specs[name].fixed_scale for name in group}
    given = {name: scale for name, scale in scales.items() if scale is not None}
    if len(set(given.values())) > 1:
        raise CalibrationError(
            "two fixed scales for activations that must share one",
            at=", ".join(f"'{name}': {scale:g}" for name, scale in given.items()),
            why="the target needs one scale where branches meet",
            fix="give both inputs the same scale",
        )
    name, scale = next(iter(given.items()))
    stored = np.asarray(scale, np.float32)
    if not (np.isfinite(stored) and stored > 0):
        raise CalibrationError(
            f"the fixed scale of '{name}' is {scale:g}", why="a scale is positive and finite"
        )
    spec = specs[name]
    plain = not (spec.asymmetric or spec.unsigned)
    return QParams(
        stored, np.zeros((), np.int32), bits=spec.bits, signed=not spec.unsigned, symmetric=plain
    )


def _warn_dead(group: tuple[str, ...], plan: Plan, report: Report) -> None:
    """Say which layers read an activation that never was anything but 0."""
    for name in group:
        readers = [layer.node for layer in plan.layers if layer.input == name]
        whom = f", which feeds {', '.join(map(repr, readers))}," if readers else ""
        report.warn(f"activation '{name}'{whom} is 0 on all calibration data; it got scale 1")

"""What a prototxt says once dialects, phases and in-place layers are out of the way.

`read` gives the layers of the TEST phase in order, each with its place in the file, and the
network's inputs. Types are not looked at here except to tell apart what feeds a network (data
layers), what only trains or measures it (losses, accuracy), and what computes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from qconvert.errors import ModelFormatError, Problem, UnsupportedError
from qconvert.frontends.caffe import caffe_pb2 as pb
from qconvert.frontends.caffe import dialects, prototxt
from qconvert.frontends.caffe.feeding import DATA, data_inputs, declared_inputs
from qconvert.frontends.caffe.layers import Input, Layer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qconvert.errors import QconvertError

__all__ = ["LOSSES", "SINKS", "Topology", "read"]

LOSSES: Final = frozenset(
    {
        "ContrastiveLoss",
        "EuclideanLoss",
        "HingeLoss",
        "InfogainLoss",
        "MultiBoxLoss",
        "MultinomialLogisticLoss",
        "SigmoidCrossEntropyLoss",
        "SmoothL1Loss",
        "SoftmaxWithLoss",
    }
)
"""Layers that end a network in training; the first bottom is what the network computes."""

SINKS: Final = frozenset({"Accuracy", "DetectionEvaluate", "HDF5Output", "Silence"})
"""Layers that read blobs and compute nothing for the network."""

_NOT_COMPUTING: Final = DATA | LOSSES | SINKS | {dialects.PADDING}

_RESULTS: Final = {"Silence": 0, "ContrastiveLoss": 2, "MultiBoxLoss": 2, "HDF5Output": 99}
"""How many of an end's bottoms the network is there to compute; otherwise the first."""

MAX_BLOBS: Final = 1000

_NAMED: Final = 3  # layers of one unknown type that a message names

_RECURRENT: Final = "recurrent networks run over time steps, this is for feed-forward ones"
_REFUSED: Final = {
    "Filter": "the shape of its top depends on the data",
    "LSTM": _RECURRENT,
    "LSTMUnit": _RECURRENT,
    "RNN": _RECURRENT,
    "Recurrent": _RECURRENT,
}
"""Layers of Caffe that are known and not read, and why."""

_HEADS: Final = {"SoftmaxWithLoss": "Softmax", "SigmoidCrossEntropyLoss": "Sigmoid"}


@dataclass(slots=True)
class Topology:
    """A network in its TEST phase.

    Attributes:
        name: The network's name; empty when it has none.
        inputs: In file order.
        layers: What computes, in file order; losses that have one are replaced by what they
            compute in a deploy net.
        outputs: Blobs that nobody reads, in the order they are made.
        replaced: Loss layer → what stands in its place, for a warning.
        renamed: New name → the name in the file, for layers whose name was taken.
    """

    name: str
    inputs: list[Input] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    replaced: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)


def read(path: Path, known: Callable[[str], bool]) -> Topology:
    """Read a prototxt.

    Args:
        path: The file.
        known: Whether a layer type can be converted.

    Raises:
        ModelFormatError: If the file is not a prototxt, or not a network.
        UnsupportedError: If layers have types that are not known; names them all.
    """
    source = prototxt.read(path)
    layers, aside = _layers(source, known)
    topology = Topology(source.net.name, declared_inputs(source.net, source.file))
    if not layers and not topology.inputs:
        raise ModelFormatError(
            "the prototxt holds no network",
            at=source.file,
            why="there are no layers and no inputs; a solver, perhaps",
        )
    for layer in layers:
        _place(layer, topology)
    _feed(topology, aside)
    _connect(topology)
    _rename_twins(topology)
    return topology


def _layers(
    source: prototxt.Prototxt, known: Callable[[str], bool]
) -> tuple[list[Layer], list[Layer]]:
    """Every layer of the TEST phase, and the data layers of other phases.

    Raises:
        UnsupportedError: If there are unknown types; names them all.
    """
    aside: list[Layer] = []
    problems: list[tuple[str, str, str]] = []
    first: QconvertError | None = None
    parsed: list[tuple[pb.Layer, str]] = []
    for block in source.blocks:
        place = f"{source.file}:{block.line}"
        layer, error = _parse(block, source.file)
        if layer is not None and not _takes_part(layer, source.net.state):
            if layer.type in DATA:
                aside.append(_layer(layer, place))
            continue
        kind = layer.type if layer is not None else dialects.kind_of(block)
        if not kind:
            first = first or error or ModelFormatError("a layer has no type", at=place)
        elif not (known(kind) or kind in _NOT_COMPUTING):
            problems.append(_unknown(kind, layer, place))
        elif error is not None and (layer is None or known(kind)):
            first = first or error
        elif layer is not None:
            parsed.append((layer, place))
    if problems:
        raise UnsupportedError.of(
            _grouped(problems),
            who="the Caffe frontend",
            fix="replace these layers, or cut the network before them",
        )
    if first is not None:
        raise first
    places = {id(layer): place for layer, place in parsed}
    joined = dialects.join_padding([layer for layer, _ in parsed])
    return [_layer(layer, places[id(layer)]) for layer in joined], aside


def _layer(params: pb.Layer, place: str) -> Layer:
    """The record of a parsed layer."""
    name = params.name or (params.top[0] if params.top else "")
    tops, bottoms = tuple(params.top), tuple(params.bottom)
    if max(len(tops), len(bottoms)) > MAX_BLOBS:
        why = f"{len(bottoms)} bottoms and {len(tops)} tops; {MAX_BLOBS} are plenty"
        raise ModelFormatError(f"layer '{name}' is unreasonably large", at=place, why=why)
    if not all((name, *tops, *bottoms)):
        raise ModelFormatError("a layer or a blob has no name", at=place)
    return Layer(name, params.type, bottoms, tops, params, place)


def _parse(block: prototxt.Block, file: str) -> tuple[pb.Layer | None, ModelFormatError | None]:
    """The layer, leniently if need be, and what was wrong with it."""
    try:
        return dialects.parse(block, file, lenient=False), None
    except ModelFormatError as error:
        try:
            return dialects.parse(block, file, lenient=True), error
        except ModelFormatError as worse:
            return None, worse


def _unknown(kind: str, layer: pb.Layer | None, place: str) -> tuple[str, str, str]:
    """How an unknown type is named: what, where, why."""
    name = f"layer '{layer.name}' ({place})" if layer is not None else place
    if kind == "Python" and layer is not None:
        code = f"{layer.python_param.module}.{layer.python_param.layer}"
        return f"layer type 'Python' ({code})", name, "its code is not in the model"
    if kind in _REFUSED:
        return f"layer type '{kind}'", name, _REFUSED[kind]
    return f"layer type '{kind}'", name, ""


def _grouped(unknown: Sequence[tuple[str, str, str]]) -> list[Problem]:
    """One problem a type, with the layers that have it."""
    places: dict[tuple[str, str], list[str]] = {}
    for what, at, why in unknown:
        places.setdefault((what, why), []).append(at)
    problems = []
    for (what, why), layers in places.items():
        more = f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else ""
        problems.append(Problem(what, ", ".join(layers[:_NAMED]) + more, why))
    return problems


def _takes_part(layer: pb.Layer, state: pb.NetState) -> bool:
    """Whether a layer belongs to the net in this state (net.cpp, Net::FilterNet)."""
    if layer.include:
        return any(_meets(state, rule) for rule in layer.include)
    return not any(_meets(state, rule) for rule in layer.exclude)


def _meets(state: pb.NetState, rule: pb.NetStateRule) -> bool:
    """net.cpp, Net::StateMeetsRule. A deploy net is in the TEST phase whatever it declares."""
    if rule.HasField("phase") and rule.phase != pb.TEST:
        return False
    if rule.HasField("min_level") and state.level < rule.min_level:
        return False
    if rule.HasField("max_level") and state.level > rule.max_level:
        return False
    stages = set(state.stage)
    return stages.issuperset(rule.stage) and stages.isdisjoint(rule.not_stage)


def _place(layer: Layer, topology: Topology) -> None:
    """Put a layer where it belongs: inputs, computing layers, or nowhere."""
    if layer.type in DATA:
        topology.inputs.extend(data_inputs(layer))
    elif layer.type in _HEADS and layer.bottoms:
        kind = _HEADS[layer.type]
        top = layer.tops[1] if len(layer.tops) > 1 else f"{layer.name}/prob"
        topology.replaced[layer.name] = f"{layer.type} is read as {kind}, output '{top}'"
        params = pb.Layer()
        params.CopyFrom(layer.params)
        head = Layer(layer.name, kind, layer.bottoms[:1], (top,), params, layer.place)
        topology.layers.append(head)
    else:
        topology.layers.append(layer)


def _feed(topology: Topology, aside: Sequence[Layer]) -> None:
    """Let data layers of other phases and stages feed what nothing else does.

    A training net may test in stages only, or not at all; as a network it has that input still.
    """
    fed = {one.name for one in topology.inputs}
    fed |= {top for layer in topology.layers for top in layer.tops}
    for layer in aside:
        for one in data_inputs(layer):
            if one.name not in fed:
                fed.add(one.name)
                topology.inputs.append(one)


def _connect(topology: Topology) -> None:
    """Check that every blob is made once before it is read, find the outputs, drop the rest."""
    declared = [one.name for one in topology.inputs]
    if len(set(declared)) != len(declared):
        twice = next(name for name in declared if declared.count(name) > 1)
        raise ModelFormatError(f"the input '{twice}' is declared twice")
    made = set(declared)
    later = {top for layer in topology.layers for top in layer.tops}
    unread: dict[str, None] = {}
    for layer in topology.layers:
        _check_bottoms(layer, made, later)
        if layer.type in LOSSES | SINKS:
            made.update(layer.tops)
            continue
        for bottom in layer.bottoms:
            unread.pop(bottom, None)
        for top in layer.tops:
            if top in made and top not in layer.bottoms:
                raise ModelFormatError(
                    f"blob '{top}' is made twice",
                    at=layer.where,
                    why="a layer may write over a blob only in place, reading it as well",
                )
            made.add(top)
            unread[top] = None
    ends = [layer for layer in topology.layers if layer.type in LOSSES | SINKS]
    topology.layers = [layer for layer in topology.layers if layer.type not in LOSSES | SINKS]
    hidden = _read_by_ends(ends)
    _drop_unneeded(topology, [blob for blob in unread if blob not in hidden])


def _read_by_ends(ends: Sequence[Layer]) -> set[str]:
    """Blobs that only losses and measurements read, and not as what the network computes."""
    results = {blob for layer in ends for blob in layer.bottoms[: _RESULTS.get(layer.type, 1)]}
    return {blob for layer in ends for blob in layer.bottoms} - results


def _check_bottoms(layer: Layer, made: set[str], later: set[str]) -> None:
    """Refuse a blob that does not exist yet."""
    for bottom in layer.bottoms:
        if bottom not in made:
            raise ModelFormatError(
                f"layer '{layer.name}' reads blob '{bottom}', which does not exist",
                at=layer.place,
                why="a later layer makes it: layers stand in the order they run"
                if bottom in later
                else "no layer makes it and it is no input",
            )


def _rename_twins(topology: Topology) -> None:
    """Give every layer a name of its own.

    Caffe takes the first layer of a name for its weights; the others are harmless as long as they
    have none, which is checked when weights are asked for.
    """
    taken = {layer.name for layer in topology.layers}
    numbers: dict[str, int] = {}
    for index, layer in enumerate(topology.layers):
        number = numbers.setdefault(layer.name, 1)
        name = layer.name
        while number > 1 and name in taken:
            name = f"{layer.name}_{number}"
            number += 1
        numbers[layer.name] = max(number, 2)
        if name != layer.name:
            taken.add(name)
            topology.layers[index] = dataclasses.replace(layer, name=name)
            topology.renamed[name] = layer.name


def _drop_unneeded(topology: Topology, unread: Sequence[str]) -> None:
    """Keep the layers and inputs that the outputs depend on.

    Outputs are unread blobs that layers make. Labels, and what is computed from nothing else, go:
    only losses read them.
    """
    wanted = set(unread)
    kept = []
    for layer in reversed(topology.layers):
        if wanted.intersection(layer.tops):
            wanted.update(layer.bottoms)
            kept.append(layer)
    topology.layers = kept[::-1]
    made = {top for layer in topology.layers for top in layer.tops}
    topology.outputs = [blob for blob in unread if blob in made]
    topology.inputs = [one for one in topology.inputs if one.name in wanted]

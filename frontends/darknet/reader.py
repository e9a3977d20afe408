"""A Darknet .cfg and its .weights in, an `onnx_ir.Model` out.

The network's input is `data`, an RGB image in 0..1. Layers are called `<type>_<index>`, where the
index counts sections after [net] from 0, and so are their results. A layer that only hands on what
another gives (a route to one layer, dropout) has no node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from qconvert.errors import ModelFormatError, Problem, UnsupportedError
from qconvert.frontends.darknet import cfg
from qconvert.frontends.darknet.layer import Layer, Network, check_size
from qconvert.frontends.darknet.ops import (
    ALIASES,
    OPERATORS,
    TRAINING_KEYS,
    activation,
    convolution,
    dense,
    heads,
    joining,
    layout,
    normalizing,
    pooling,
)
from qconvert.frontends.darknet.weights import (
    CountedWeights,
    FileWeights,
    NoWeights,
    RandomWeights,
)
from qconvert.functions.detections import detections
from qconvert.graph import IR_VERSION, OPSET, shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qconvert.frontends.darknet.cfg import Section
    from qconvert.frontends.darknet.ops import Operator
    from qconvert.frontends.darknet.weights import Weights
    from qconvert.report import Report
    from qconvert.source import ReadOptions, Source

__all__ = ["INPUT", "build", "operators", "read"]

INPUT: Final = "data"
"""Name of the network's input."""

_FAMILIES: Final = (activation, convolution, dense, heads, joining, layout, normalizing, pooling)
"""Modules that fill the table of operators when they are imported."""

_FIX: Final = "cut the cfg before these layers, or convert another network"

_UNKNOWN: Final[Mapping[str, str]] = {
    **dict.fromkeys(("rnn", "gru", "lstm", "crnn", "conv_lstm"), "it is recurrent"),
    "history": "it remembers earlier images",
    "iseg": "instance segmentation masks",
    "deconv": "a transposed convolution",
    "deconvolutional": "a transposed convolution",
}
"""Sections that Darknet knows and we do not, and what they are."""


def operators() -> list[str]:
    """Every section that is read, in alphabetical order, aliases included."""
    return sorted(ALIASES)


def read(source: Source, options: ReadOptions, report: Report) -> ir.Model:
    """Read a network.

    Args:
        source: The .cfg and the .weights; without weights only with `options.random_weights`, or
            where no layer needs any.
        options: `input_shapes["data"]` [1, C, H, W] replaces the size of [net].
        report: Is told of bytes and keys that have no effect.

    Returns:
        A model whose outputs are what the detection heads give (`yolo_<i>`, ...), or the last layer
        where there is none; with `options.detection_output` also `detections`.

    Raises:
        ModelFormatError: If a file is damaged, or the two do not belong together.
        UnsupportedError: With everything in the network that cannot be expressed.
    """
    sections = cfg.read(source.model, report)
    _refuse_unknown(sections[1:])
    if source.weights is not None:
        file = FileWeights(source.weights)
        file.batchnorm_biases = _has_batchnorm_biases(sections, file.count, options, report)
        network = build(sections, file, options, report)
        file.finish(report)
        return network.model
    random = options.random_weights
    weights = RandomWeights(options.seed) if random else NoWeights()
    return build(sections, weights, options, report).model


def _refuse_unknown(sections: Sequence[Section]) -> None:
    """Refuse all layers that are not in the table, and options that are not supported, at once."""
    problems = []
    for index, section in enumerate(sections):
        name = ALIASES.get(section.name)
        at = f"layer {index} ({section.place})"
        if name is None:
            why = _UNKNOWN.get(section.name, "Darknet does not know it either")
            problems.append(Problem(f"[{section.name[:40]}]", at, why))
            continue
        for key, why in OPERATORS[name].refuses.items():
            option = section.options.get(key)
            if option is not None and option.value.split("#")[0] not in {"", "0"}:
                problems.append(
                    Problem(f"[{section.name}] with {key}={option.value[:40]}", at, why)
                )
    if problems:
        raise UnsupportedError.of(problems, who="the Darknet reader", fix=_FIX)


def _has_batchnorm_biases(
    sections: Sequence[Section], count: int, options: ReadOptions, report: Report
) -> bool:
    """Whether a file of `count` numbers stores biases of [batchnorm] layers.

    AlexeyAB's Darknet does and pjreddie's does not, and no header tells: the size does.
    """
    if not any(section.name == "batchnorm" for section in sections):
        return True
    counts = []
    for biased in (True, False):
        counted = CountedWeights()
        counted.batchnorm_biases = biased
        build(sections, counted, options, report)
        counts.append(counted.count)
    return count != counts[1]


def build(
    sections: Sequence[Section], weights: Weights, options: ReadOptions, report: Report
) -> Network:
    """The network of parsed sections."""
    network = _start(sections[0], weights, options, report)
    model = network.model
    data = model.graph.inputs[0]
    for index, section in enumerate(sections[1:]):
        operator = OPERATORS[ALIASES[section.name]]
        previous = network.values[-1] if network.values else data
        name = f"{operator.name.lower()}_{index}"
        layer = Layer(section, index, name, previous, network)
        before = len(model.graph)
        value = operator.convert(layer)
        if len(model.graph) > before:
            value.name = name
        network.values.append(value)
        _report_unused(section, operator, report)
    if network.problems:
        raise UnsupportedError.of(network.problems, who="the Darknet reader", fix=_FIX)
    _finish(network, sections)
    return network


def _start(net: Section, weights: Weights, options: ReadOptions, report: Report) -> Network:
    """A network with nothing but its input: an image, or the vector of [net] inputs=."""
    sides = [net.integer(key, 0, low=0) for key in ("channels", "height", "width")]
    vector = net.integer("inputs", 0, low=0)
    shape = (1, *sides) if all(sides) else (1, vector)
    wanted = dict(options.input_shapes)
    if INPUT in wanted:
        shape = _replaced(net, tuple(wanted.pop(INPUT)), shape)
    if wanted:
        raise ModelFormatError(
            f"the network has no input '{next(iter(wanted))}'",
            at=net.place,
            why=f"the input of a Darknet network is called '{INPUT}'",
            fix=f"--input-shape {INPUT}=1,C,H,W",
        )
    check_size(shape, "the network's input", net.place)
    if net.integer("letter_box", 0):
        report.warn(
            f"{net.file} has letter_box=1: it expects images that keep their aspect on a gray "
            "border (--resize letterbox, fill 127)"
        )
    data = ir.val(INPUT, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
    graph = ir.Graph(
        [data],
        [],
        nodes=[],
        name=net.file.rsplit(".", 1)[0] or "darknet",
        opset_imports={"": OPSET},
    )
    model = ir.Model(graph, ir_version=IR_VERSION, producer_name="qconvert")
    image = shape[2:] if len(shape) == 4 else (0, 0)
    return Network(model, image[1], image[0], weights, options, report)


def _replaced(net: Section, wanted: tuple[int, ...], declared: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that the user wants for the input."""
    if len(wanted) != len(declared) or wanted[0] != 1:
        raise ModelFormatError(
            f"the input cannot have the shape {list(wanted)}",
            at=net.place,
            why=f"the cfg declares {list(declared)}, and the batch is 1",
            fix=f"--input-shape {INPUT}=" + ",".join(map(str, declared)),
        )
    return wanted


def _report_unused(section: Section, operator: Operator, report: Report) -> None:
    """Name keys that nobody knows."""
    known = section.used | operator.ignores | TRAINING_KEYS | set(operator.refuses)
    for key, option in section.options.items():
        if key not in known:
            report.warn(
                f"{section.file}:{option.line}: '{key[:40]}' in [{section.name}] is not known, "
                "and has no effect"
            )


def _finish(network: Network, sections: Sequence[Section]) -> None:
    """Give the graph its outputs: the heads, else the last layer; then the detections."""
    if not network.values:
        raise ModelFormatError("the network has no layers", at=sections[0].place)
    graph = network.model.graph
    if network.heads:
        graph.outputs.extend(head.value for head in network.heads)
    else:
        graph.outputs.append(_last(network, sections))
    if network.options.detection_output:
        graph.outputs.append(_detections(network, sections))


def _last(network: Network, sections: Sequence[Section]) -> ir.Value:
    """What the last layer gives, as a value of that name that a node computes.

    A [cost] at the end is passed over: what enters it is the network's prediction.
    """
    index = len(sections) - 2
    while index > 0 and sections[index + 1].name == "cost":
        index -= 1
    section = sections[index + 1]
    value = network.values[index]
    name = f"{ALIASES[section.name].lower()}_{index}"
    if value.name != name:
        layer = Layer(section, index, name, value, network)
        value = layer.op("Identity", [value], shape_of(value))
        value.name = name
    return value


def _detections(network: Network, sections: Sequence[Section]) -> ir.Value:
    """The value `detections` [K, 6], computed from all heads together."""
    heads = network.heads
    if not heads:
        raise UnsupportedError(
            "the network has no detections",
            at=sections[-1].place,
            why="it has no [yolo], [Gaussian_yolo], [region] or [detection] layer",
            fix="leave out --detection-output",
        )
    kinds = {(type(head.parameters), _agreeing(head.parameters)) for head in heads}
    if len(kinds) > 1:
        problem = Problem(
            "heads of several kinds",
            "; ".join(f"layer '{head.name}' ({head.place})" for head in heads),
            "they must agree in kind, classes and coordinates",
        )
        raise UnsupportedError.of([problem], who="--detection-output", fix="leave it out")
    model = network.model
    parameters = [head.parameters for head in heads]
    node = detections(model, [head.raw for head in heads], parameters, "detections")
    layer = Layer(sections[-1], len(sections) - 2, "detections", heads[-1].value, network)
    value = layer.append(node, "detections", (1, 6))
    value.shape = ir.Shape(["detections", 6])
    return value


def _agreeing(head: object) -> tuple[object, ...]:
    """What all heads must have in common to be decoded together."""
    keys = ("classes", "network", "new_coords", "gaussian", "point")
    older = ("coords", "softmax", "background", "side", "num", "square")
    return tuple(getattr(head, key, None) for key in keys + older)

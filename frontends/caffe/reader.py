"""The Caffe reader: prototxt and caffemodel to the intermediate representation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from qconvert.errors import ModelFormatError, Problem, UnsupportedError, UsageError
from qconvert.frontends.caffe import feeding, topology, weights
from qconvert.frontends.caffe.convert import MAX_AXES, MAX_ELEMENTS, Context, Supply
from qconvert.frontends.caffe.ops import CONVERTERS
from qconvert.graph import IR_VERSION, OPSET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qconvert.frontends.caffe.layers import Input, Layer
    from qconvert.frontends.caffe.topology import Topology
    from qconvert.report import Report
    from qconvert.source import ReadOptions, Source

__all__ = ["operators", "read"]


def operators() -> Sequence[str]:
    """Every layer type that is read; those that only feed, train or measure included."""
    return sorted({*CONVERTERS, *feeding.DATA, *topology.LOSSES, *topology.SINKS})


def read(source: Source, options: ReadOptions, report: Report) -> ir.Model:
    """Read a Caffe network.

    Args:
        source: The prototxt, and the caffemodel.
        options: `input_shapes`, `random_weights` and `seed` have a meaning here.
        report: Gets warnings.

    Returns:
        A model by the conventions of `qconvert.graph`.

    Raises:
        ModelFormatError: If a file is damaged, or the two do not belong together.
        UnsupportedError: If there are layers that cannot be expressed; names all unknown types.
        UsageError: If `input_shapes` names an input that does not exist.
    """
    net = topology.read(source.model, CONVERTERS.__contains__)
    for name, sentence in net.replaced.items():
        report.warn(f"layer '{name}': {sentence}")
    if net.renamed:
        some = ", ".join(f"'{old}' → '{name}'" for name, old in list(net.renamed.items())[:3])
        report.warn(f"{len(net.renamed)} layers had the name of another: {some}")
    file = source.weights.name if source.weights else ""
    blobs = weights.read(source.weights) if source.weights else None
    random = np.random.default_rng(options.seed) if options.random_weights else None
    builder = _Builder(net, Supply(blobs, file, random), report)
    builder.start(options.input_shapes)
    builder.convert()
    return builder.finish()


class _Builder:
    """Converts layer by layer; knows which value every blob is at the moment."""

    def __init__(self, net: Topology, supply: Supply, report: Report) -> None:
        self.net = net
        self.supply = supply
        self.report = report
        main = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=net.name or "caffe")
        self.model = ir.Model(main, ir_version=IR_VERSION, producer_name="qconvert")
        self.blobs: dict[str, ir.Value] = {}
        self.names: dict[int, str] = {}  # id of a value → the blob it was last written as
        self.taken: set[str] = set()
        self.twins: dict[str, int] = {}  # name → the last number that told values apart
        self.nodes: list[ir.Node] = []  # a graph would name their outputs by its own lights

    def start(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Make the graph inputs."""
        known = [one.name for one in self.net.inputs]
        for name in shapes:
            if name not in known:
                raise UsageError(
                    f"there is no input '{name}'",
                    why=f"the network's inputs are {', '.join(known)}",
                    fix="correct --input-shape",
                )
        for one in self.net.inputs:
            shape = self._input_shape(one, shapes.get(one.name))
            value = ir.val(one.name, ir.DataType.FLOAT, shape)
            self.model.graph.inputs.append(value)
            self.blobs[one.name] = value
            self.taken.add(one.name)

    def _input_shape(self, one: Input, given: Sequence[int] | None) -> list[int]:
        """The shape of an input, with batch 1."""
        shape = list(given if given is not None else one.shape or ())
        if not shape:
            raise ModelFormatError(
                f"the shape of input '{one.name}' is not known",
                at=one.place,
                why=one.why or "an empty shape is declared",
                fix=f"give it: --input-shape {one.name}=1,3,224,224",
            )
        shape[0] = 1
        elements = 1
        for dim in shape:
            elements *= max(dim, 0)
        if not 0 < elements <= MAX_ELEMENTS or len(shape) > MAX_AXES:
            raise ModelFormatError(
                f"input '{one.name}' has the shape {shape[:MAX_AXES]}",
                at=one.place,
                why="dimensions are at least 1, and a blob holds less than 2^31 numbers",
                fix=f"give another: --input-shape {one.name}=1,3,224,224",
            )
        return shape

    def convert(self) -> None:
        """Convert every layer that can be; then refuse, naming all that cannot.

        Layers that follow a refused one are passed over: its shape is not known.
        """
        refused: list[UnsupportedError] = []
        for layer in self.net.layers:
            if not all(bottom in self.blobs for bottom in layer.bottoms):
                for top in layer.tops:
                    self.blobs.pop(top, None)
                continue
            try:
                self._layer(layer)
            except UnsupportedError as error:
                refused.append(error)
                for top in layer.tops:
                    self.blobs.pop(top, None)
        if len(refused) == 1:
            raise refused[0]
        if refused:
            problems = [Problem(error.what, error.at, error.why) for error in refused]
            raise UnsupportedError.of(
                problems, who="qconvert", fix="replace these layers, or cut the network before them"
            )

    def _layer(self, layer: Layer) -> None:
        """Convert one layer and give its values to its tops."""
        inputs = [self.blobs[bottom] for bottom in layer.bottoms]
        context = Context(layer, inputs, self.model, self.report, self.supply)
        if not inputs and layer.type != "Parameter":
            raise context.error(f"{layer.type} has no bottom")
        if not layer.tops:
            raise context.error(f"{layer.type} has no top")
        results = CONVERTERS[layer.type](context)
        if len(results) < len(layer.tops):
            raise context.error(
                f"{layer.type} has {len(layer.tops)} tops", f"it gives {len(results)}"
            )
        for value in context.initializers:
            value.name = self._fresh(str(value.name))
            self.model.graph.initializers.add(value)
        self.nodes.extend(context.nodes)
        for top, value in zip(layer.tops, results, strict=False):
            self.blobs[top] = value
            self.names[id(value)] = top

    def finish(self) -> ir.Model:
        """Name the values, set the outputs."""
        self._name_last_writers()
        for node in self.nodes:
            for index, value in enumerate(node.outputs):
                if not value.name:
                    blob = self.names.get(id(value))
                    helper = f"{node.name}:{index}" if index else str(node.name)
                    value.name = self._fresh(f"{blob}/{node.name}" if blob else helper)
        self.model.graph.extend(self.nodes)
        for blob in self.net.outputs:
            self.model.graph.outputs.append(self._output(blob))
        if not self.model.graph.outputs:
            raise ModelFormatError(
                "the network has no outputs", why="it has no layer that computes something"
            )
        return self.model

    def _name_last_writers(self) -> None:
        """A blob's name belongs to its last writer; an input keeps its own."""
        for blob, value in self.blobs.items():
            if value.name is None and blob not in self.taken and self.names[id(value)] == blob:
                value.name = blob
                self.taken.add(blob)

    def _fresh(self, name: str) -> str:
        """`name`, or a variant that no value has."""
        candidate = name
        while candidate in self.taken:
            self.twins[name] = self.twins.get(name, 1) + 1
            candidate = f"{name}_{self.twins[name]}"
        self.taken.add(candidate)
        return candidate

    def _output(self, blob: str) -> ir.Value:
        """The value of an output blob; a node of its own where the value has another name."""
        value = self.blobs[blob]
        if value.name == blob and not value.is_graph_input() and not value.is_graph_output():
            return value
        node = ir.node("Identity", [value], name=self._fresh(f"{blob}/output"))
        node.outputs[0].name = self._fresh(blob)
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
        self.model.graph.append(node)
        return node.outputs[0]

"""What stays float: pieces of the model between codes and codes, each an ONNX file.

Layers run in phases, integers in even ones and floats in odd ones: a phase is as late as what it
reads makes it. Float operators of one phase that hand values to one another are one segment. Its
file holds the DequantizeLinear and QuantizeLinear at its rim, so that it takes codes and gives
codes; what it hands to the user or to a later segment without codes is float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from qconvert.graph import IR_VERSION, OPSET, constant
from qconvert.integer.program import Layer, unique_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from qconvert.backends.raw.draft import Draft
    from qconvert.integer.program import Tensor
    from qconvert.qdq import Pair

__all__ = ["FOLDER", "Segments"]

FOLDER: Final = "float"
_CONSTANT: Final = 0
_FIRST: Final = 1


@dataclass(slots=True, eq=False)
class _Want:
    """A value that a segment has to give: as codes, or as it is."""

    value: ir.Value
    given: ir.Value
    tensor: Tensor


@dataclass(slots=True)
class Segments:
    """Gathers what stays float.

    Attributes:
        model: The Q/DQ model.
        draft: The program so far.
        sums: Tries to let the sums of a layer leave as they are.
        layers: The segments as layers, with their phases; after `finish`.
        files: Path → content; after `finish`.
    """

    model: ir.Model
    draft: Draft
    sums: Callable[[ir.Value], bool]
    layers: list[tuple[int, Layer]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    _phases: dict[ir.Node, int] = field(default_factory=dict)
    _wants: list[_Want] = field(default_factory=list)
    _floats: dict[ir.Value, Tensor] = field(default_factory=dict)
    _tried: set[ir.Value] = field(default_factory=set)

    @property
    def nodes(self) -> list[ir.Node]:
        """Every operator that stays float, in graph order."""
        return [node for node in self.model.graph if self._phases.get(node, 0) > _CONSTANT]

    def quantized(self, pair: Pair, tensor: Tensor) -> None:
        """A segment is to give the codes of a pair."""
        self.draft.phases[tensor.id] = self._settle(pair.source)
        self.draft.known[pair.output] = tensor.id
        codes = pair.nodes[-1].inputs[0]
        assert codes is not None
        self._wants.append(_Want(pair.source, codes, tensor))

    def output(self, value: ir.Value) -> None:
        """A segment is to give a network output."""
        self._as_float(value, self._settle(value))

    def finish(self) -> dict[str, str]:
        """Make every segment a layer; network output → id of its tensor."""
        for node in self.nodes:
            for value in node.inputs:
                made = None if value is None else value.producer()
                if value is None or made is None or value in self.draft.known:
                    continue
                phase = self._phases[made]
                if phase not in {_CONSTANT, self._phases[node]}:
                    self._as_float(value, phase)
        for nodes in self._connected():
            self._segment(nodes)
        return {
            str(value.name): self.draft.known.get(value) or self._floats[value].id
            for value in self.model.graph.outputs
        }

    def _settle(self, value: ir.Value) -> int:
        """The phase of a float value; those of everything before it become known."""
        waiting = [value]
        while waiting:
            current = waiting[-1]
            node = current.producer()
            if self._phase(current) is not None or node is None:
                waiting.pop()
                continue
            sources = [source for source in node.inputs if source is not None]
            unknown = [source for source in sources if self._phase(source) is None]
            if unknown:
                waiting.extend(unknown)
                continue
            phases = [self._phase(source) or _CONSTANT for source in sources]
            self._phases[node] = max(phases, default=_CONSTANT)
            waiting.pop()
        return self._phase(value) or _FIRST

    def _phase(self, value: ir.Value) -> int | None:
        """The phase in which a float operator can read `value`; None while it is not known."""
        if constant(value) is not None:
            return _CONSTANT
        node = value.producer()
        if node is None:
            return _FIRST
        if node in self._phases and value not in self.draft.known:
            return self._phases[node]
        if value not in self.draft.known and value not in self._tried:
            self._tried.add(value)
            self.sums(value)
        if value in self.draft.known:
            made = self.draft.phases[self.draft.known[value]]
            return made + 1 + made % 2
        return None

    def _as_float(self, value: ir.Value, phase: int) -> None:
        """Let a value pass between segments, or out of the network, as it is."""
        if value in self._floats:
            return
        given = value.producer() is None
        tensor = self.draft.floats(value, "input" if given else "activation", phase)
        self._floats[value] = tensor
        if not given:
            self._wants.append(_Want(value, value, tensor))

    def _connected(self) -> Iterable[list[ir.Node]]:
        """Operators of one phase that hand values to one another, in graph order."""
        leader = {node: node for node in self.nodes}

        def find(node: ir.Node) -> ir.Node:
            while leader[node] is not node:
                leader[node] = leader[leader[node]]
                node = leader[node]
            return node

        for node in leader:
            for value in node.inputs:
                made = None if value is None else value.producer()
                if made not in leader or value in self.draft.known:
                    continue
                assert made is not None
                if self._phases[made] == self._phases[node]:
                    leader[find(node)] = find(made)
        groups: dict[ir.Node, list[ir.Node]] = {}
        for node in leader:
            groups.setdefault(find(node), []).append(node)
        return groups.values()

    def _segment(self, nodes: list[ir.Node]) -> None:
        """One segment as a file and a layer."""
        inside = set(nodes)
        wants = [want for want in self._wants if want.value.producer() in inside]
        sources = self._sources(nodes)
        name = str(nodes[-1].name)
        taken = {path.removeprefix(f"{FOLDER}/").removesuffix(".onnx") for path in self.files}
        path = f"{FOLDER}/{unique_id(name, taken)}.onnx"
        self.files[path] = self._file(sources, [want.given for want in wants])
        layer = Layer(
            id=self.draft.layer_id(name),
            name=name,
            op="float",
            inputs=tuple(tensor.id for tensor in sources.values()),
            outputs=tuple(want.tensor.id for want in wants),
            attributes={"file": path, "operators": [node.op_type for node in nodes]},
        )
        self.layers.append((self._phases[nodes[0]], layer))

    def _sources(self, nodes: list[ir.Node]) -> dict[ir.Value, Tensor]:
        """What a segment reads from outside, constants aside."""
        inside, sources = set(nodes), dict[ir.Value, "Tensor"]()
        for value in (value for node in nodes for value in node.inputs):
            if value is None or constant(value) is not None:
                continue
            made = value.producer()
            if value in self.draft.known:
                sources[value] = self.draft.tensors[self.draft.known[value]]
            elif made is None:
                self._as_float(value, _CONSTANT)
                sources[value] = self._floats[value]
            elif made not in inside and self._phases[made] != _CONSTANT:
                sources[value] = self._floats[value]
        return sources

    def _file(self, sources: dict[ir.Value, Tensor], results: list[ir.Value]) -> bytes:
        """The ONNX file of a segment."""
        graph = ir.convenience.extract(self.model.graph, list(sources), results)
        for index, tensor in enumerate(sources.values()):
            if tensor.encoding != "float":
                _dequantize(graph, index, tensor)
        graph.opset_imports.setdefault("", OPSET)
        model = ir.Model(
            graph, ir_version=IR_VERSION, functions=list(self.model.functions.values())
        )
        model.producer_name = "qconvert"
        common.InlinePass()(model)
        model.functions.clear()
        common.RemoveUnusedOpsetsPass()(model)
        for node in model.graph:
            node.metadata_props.clear()
        return ir.to_proto(model).SerializeToString(deterministic=True)


def _dequantize(graph: ir.Graph, index: int, tensor: Tensor) -> None:
    """Let a segment take codes where the model has real numbers."""
    old, prefix = graph.inputs[index], f"codes/{tensor.id}"
    fed = ir.val(prefix, ir.DataType.from_numpy(np.dtype(tensor.dtype)), ir.Shape(tensor.shape))
    scale = np.asarray(tensor.scale, np.float32)
    per_channel = tensor.axis is not None
    arrays = [scale if per_channel else scale.reshape(())]
    if not per_channel:
        arrays.append(np.asarray(tensor.zero_point, tensor.dtype))
    constants = []
    for name, array in zip(("scale", "zero_point"), arrays, strict=False):
        held = ir.tensor(array, name=f"{prefix}/{name}")
        value = ir.val(f"{prefix}/{name}", held.dtype, held.shape.numpy(), const_value=held)
        graph.register_initializer(value)
        constants.append(value)
    real = ir.val(f"{prefix}/real", ir.DataType.FLOAT, ir.Shape(tensor.shape))
    attributes = {"axis": tensor.axis} if per_channel else {}
    node = ir.node(
        "DequantizeLinear", [fed, *constants], attributes, outputs=[real], name=f"{prefix}/node"
    )
    old.replace_all_uses_with(real)
    graph.inputs[index] = fed
    if len(graph):
        graph.insert_before(graph[0], node)
    else:
        graph.append(node)

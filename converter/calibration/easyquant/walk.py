"""One walk through the network, float and quantized side by side, for all samples at once.

At every value that will be quantized the walk stops and asks for a decision. By then the float
value and what the quantized network makes of it so far are both at hand: no prefix is ever run
twice. Values are dropped after their last reader.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import onnx_ir as ir

from qconvert.calibration.easyquant.fake import fake
from qconvert.calibration.easyquant.nodes import clip_bounds, isolate
from qconvert.calibration.easyquant.scratch import Kept, Scratch
from qconvert.graph import constant, input_shapes, sole_consumer
from qconvert.quant import dequantize, quantize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from qconvert.plan import Plan, PlannedLayer
    from qconvert.quant import F32, Encodings, QParams
    from qconvert.runtimes.onnx import OnnxRuntime

__all__ = ["Decider", "Walk", "judges"]


_Made = TypeVar("_Made")


class Decider(Protocol):
    """Chooses encodings at each stop of a walk."""

    def decide(self, walk: Walk, name: str, layers: Sequence[PlannedLayer]) -> None:
        """Put encodings for activation `name`, and for `layers` that read it, into the walk's."""

    def finish(self, walk: Walk, layer: PlannedLayer) -> None:
        """The quantized output of `layer` is there: a last correction, and progress."""


class Walk:
    """Float and quantized values of the network, node by node.

    Args:
        model: The optimized float model.
        plan: What is quantized.
        encodings: Filled by the decider as the walk goes; the walk quantizes by them.
        samples: Network inputs, one mapping per sample.
        threads: Threads of the runtime; 0: one per core.
        floats: Whether to walk the float network too; without it, only the quantized one.
    """

    def __init__(
        self,
        model: ir.Model,
        plan: Plan,
        encodings: Encodings,
        samples: Sequence[Mapping[str, F32]],
        *,
        threads: int = 0,
        floats: bool = True,
    ) -> None:
        self.model, self.plan, self.encodings = model, plan, encodings
        self.floats = floats
        self.nodes = {str(node.name): node for node in model.graph}
        self.judged = judges(model, plan)
        self._samples = samples
        self._order = _needed(model, plan, self.judged)
        self._makers = {str(value.name): node for node in self._order for value in node.outputs}
        self._layers = {layer.node: layer for layer in plan.layers}
        self._everywhere = plan.every_reader or bool(plan.uses)
        self._rounds: dict[str, set[str]] = {}
        for name, readers in plan.uses.items():
            for reader, _ in readers:
                self._rounds.setdefault(reader, set()).add(name)
        self._left = Counter(
            str(value.name) for node in self._order for value in set(node.inputs) if value
        )
        self._left.update(self.judged)
        self._scratch = Scratch()
        self._workers = threads or os.cpu_count() or 1
        # Samples are independent: one thread each wastes less than threads within an operator.
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="qconvert-walk")
        self._float: dict[str, Kept] = {}
        self._quant: dict[str, Kept] = {}

    def run(self, decider: Decider) -> None:
        """Go from the inputs to the outputs."""
        with self._pool:
            for name in input_shapes(self.model):
                if self._left[name]:
                    kept = Kept(np.stack([sample[name] for sample in self._samples]))
                    self._float[name] = self._quant[name] = kept
                    self._stop(name, decider)
            for node in self._order:
                self._step(node, decider)

    def exact(self, name: str) -> Kept:
        """The float value called `name`; computed ahead of its turn when need be."""
        if name not in self._float:
            self._float.update(self._compute(self._makers[name], self._float))
        return self._float[name]

    def seen(self, name: str) -> Kept:
        """The value called `name` in the quantized network, before its own quantization."""
        return self._quant[name]

    def bounds(self, name: str) -> tuple[float, float]:
        """Between which values the one reader of `name`, where it is a Relu or Clip, keeps it."""
        maker = self._makers.get(name)
        value = None if maker is None else next(v for v in maker.outputs if v.name == name)
        reader = None if value is None else sole_consumer(value)
        return (-np.inf, np.inf) if reader is None else clip_bounds(reader)

    def rows(self, layer: PlannedLayer, params: QParams) -> Iterator[F32]:
        """Output of `layer` per sample, its input quantized by `params`, its weight as encoded."""
        node, name = self.nodes[layer.node], layer.input
        with isolate(self.model, node, self._constants(layer)) as runtime:

            def one(index: int) -> F32:
                feed = self._feed(runtime, self._quant, index)
                feed[name] = fake(feed[name], params)
                return runtime.run(feed)[str(node.outputs[0].name)]

            yield from self._each(one)

    def _constants(self, layer: PlannedLayer) -> dict[int, F32]:
        """The weight and bias of a layer as the encodings have them."""
        node, found = self.nodes[layer.node], {}
        if layer.weight is not None:
            params = self.encodings.weights[layer.weight]
            weight = constant(node.inputs[1])
            assert weight is not None
            chosen = self.encodings.rounded.get(layer.weight)
            nearest = quantize(weight.astype(np.float32, copy=False), params)
            found[1] = dequantize(nearest if chosen is None else chosen, params)
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            corrected = self.encodings.biases.get(str(node.inputs[2].name))
            if corrected is not None:
                found[2] = corrected
        return found

    def _step(self, node: ir.Node, decider: Decider) -> None:
        """Compute a node on both sides, and stop at what it made."""
        layer = self._layers.get(str(node.name))
        missing = [v for v in node.outputs if v.name and v.name not in self._float]
        alike = layer is None and self.floats and self._alike(node)
        spent = None if layer is not None else self._spent(node)
        if self.floats and missing:
            shared = spent is not None and self._float[spent] is self._quant[spent]
            over = None if spent is None or (shared and not alike) else self._float[spent]
            self._float.update(self._compute(node, self._float, over=over))
        if alike:
            made = {str(v.name): self._float[str(v.name)] for v in node.outputs if v.name}
            self._quant.update(made)
        elif layer is None or (layer.weight is None and self._everywhere):
            over = None if spent is None else self._quant[spent]
            made = self._compute(node, self._quant, self._rounded(node), over=over)
            self._quant.update(made)
        else:
            params = self.encodings.activations[layer.input]
            rows = self._keep(self.rows(layer, params))
            self._quant[layer.output] = rows
            decider.finish(self, layer)
        for value in node.outputs:
            self._stop(str(value.name), decider)
        for name in {str(value.name) for value in node.inputs if value}:
            self._release(name)
        for value in node.outputs:
            if not self._left[str(value.name)]:
                self._drop(str(value.name))

    def replace(self, name: str, rows: Iterator[F32]) -> None:
        """Put other rows in the place of the quantized network's `name`.

        Each row may be computed from the one it replaces.
        """
        kept = self._quant[name]
        shared = self._float.get(name) is kept
        self._quant[name] = self._keep(rows, over=None if shared else kept)

    def _spent(self, node: ir.Node) -> str | None:
        """The one value that `node` computes from, where nothing else reads it any more."""
        names = [name for name in {str(v.name) for v in node.inputs if v} if name in self._quant]
        return names[0] if len(names) == 1 and self._left[names[0]] == 1 else None

    def _alike(self, node: ir.Node) -> bool:
        """Whether both sides see the same inputs, nothing up to `node` being quantized."""
        if node.name in self._rounds:
            return False
        names = [str(value.name) for value in node.inputs if value]
        return all(self._quant.get(name) is self._float.get(name) for name in names)

    def _stop(self, name: str, decider: Decider) -> None:
        """Ask for a decision on `name` where one is due."""
        if name not in self.plan.activations:
            return
        layers = [layer for layer in self.plan.layers if layer.input == name]
        decider.decide(self, name, layers)
        if self.plan.every_reader:
            params = self.encodings.activations[name]
            kept = self._quant[name]
            self.replace(name, (fake(kept[i], params) for i in range(len(kept))))

    def _rounded(self, node: ir.Node) -> Mapping[str, QParams]:
        """The inputs that `node` alone reads quantized, and how."""
        names = self._rounds.get(str(node.name), ())
        return {name: self.encodings.activations[name] for name in names}

    def _compute(
        self,
        node: ir.Node,
        side: Mapping[str, Kept],
        rounded: Mapping[str, QParams] | None = None,
        *,
        over: Kept | None = None,
    ) -> dict[str, Kept]:
        """Run a node for every sample from the values of one side, some of them rounded.

        The result may take the place of `over`, which nothing else needs.
        """
        grids = rounded or {}

        def one(index: int) -> dict[str, F32]:
            feed = self._feed(runtime, side, index)
            return runtime.run(feed | {k: fake(feed[k], params) for k, params in grids.items()})

        with isolate(self.model, node) as runtime:
            results = self._each(one)
            if len(runtime.outputs) == 1:  # stored as they come
                (name,) = runtime.outputs
                return {name: self._keep((result[name] for result in results), over)}
            every = list(results)
        return {name: self._keep(result[name] for result in every) for name in runtime.outputs}

    def _each(self, work: Callable[[int], _Made]) -> Iterator[_Made]:
        """Do `work` for every sample, a few samples at a time, in order."""
        count = len(self._samples)
        for start in range(0, count, self._workers):
            group = range(start, min(start + self._workers, count))
            yield from self._pool.map(work, group) if len(group) > 1 else map(work, group)

    def _feed(self, runtime: OnnxRuntime, side: Mapping[str, Kept], index: int) -> dict[str, F32]:
        return {name: np.asarray(side[name][index]) for name in runtime.inputs}

    def _keep(self, rows: Iterator[F32], over: Kept | None = None) -> Kept:
        """Store one array per sample, in the place of `over` where they fit."""
        first = next(rows)
        store = None if over is None else over.fitting(first)
        if store is None:
            store = self._scratch.room(len(self._samples), first.shape, first.dtype)
        store[0] = first
        for index, row in enumerate(rows, start=1):
            if row.shape != first.shape:
                return Kept([*store[:index], row, *rows])
            store[index] = row
        return Kept(store)

    def _release(self, name: str) -> None:
        """One reader of `name` is done."""
        self._left[name] -= 1
        if not self._left[name]:
            self._drop(name)

    def _drop(self, name: str) -> None:
        """Forget both sides of `name`."""
        sides = [side.pop(name, None) for side in (self._float, self._quant)]
        alive = {id(kept.rows) for side in (self._float, self._quant) for kept in side.values()}
        for kept in {id(side.rows): side for side in sides if side is not None}.values():
            if id(kept.rows) not in alive:  # nothing was computed in its place
                self._scratch.free(kept)


def judges(model: ir.Model, plan: Plan) -> tuple[str, ...]:
    """The values by which a whole network is judged.

    Its float outputs of fixed shape; where it has none (detections), the outputs of the planned
    layers that no other planned layer depends on.
    """
    made = {id(value) for node in model.graph for value in node.outputs}
    outputs = [value for value in model.graph.outputs if id(value) in made and _is_static(value)]
    if outputs:
        return tuple(dict.fromkeys(str(value.name) for value in outputs))
    planned = {layer.node for layer in plan.layers}
    last = {layer.output for layer in plan.layers}
    for node in model.graph:
        if node.name in planned:
            last -= {name for name in last if _depends(node, name)}
    return tuple(layer.output for layer in plan.layers if layer.output in last)


def _is_static(value: ir.Value) -> bool:
    """Whether `value` is float and of a known, fixed shape."""
    fixed = value.shape is not None and all(isinstance(dim, int) for dim in value.shape)
    return fixed and value.dtype == ir.DataType.FLOAT


def _depends(node: ir.Node, name: str) -> bool:
    """Whether `node` reads, directly or not, the value called `name`."""
    waiting, seen = [node], set()
    while waiting:
        for value in waiting.pop().inputs:
            if value is None or id(value) in seen:
                continue
            seen.add(id(value))
            if value.name == name:
                return True
            producer = value.producer()
            if producer is not None:
                waiting.append(producer)
    return False


def _needed(model: ir.Model, plan: Plan, judged: Sequence[str]) -> list[ir.Node]:
    """The nodes that planned values, planned layers or judged values depend on, in order."""
    wanted = {*judged, *plan.activations, *(layer.output for layer in plan.layers)}
    needed: list[ir.Node] = []
    for node in reversed(list(model.graph)):
        if any(value.name in wanted for value in node.outputs):
            wanted.update(str(value.name) for value in node.inputs if value is not None)
            needed.append(node)
    return needed[::-1]

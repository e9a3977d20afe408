"""Compare an artifact with its simulation layer by layer, each from the artifact's own inputs.

Run freely, a quantized network and its simulation drift apart although both are right: a sum that
lies next to the middle of two codes is rounded up here and down there, the next layer sees another
code, and at few bits or in a narrow network one such code can change an output visibly. What has to
agree is each step. So every quantized activation of the simulation is replaced by what the artifact
has there, and the simulation computes one step on: to the next quantized activations, and to the
outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from qconvert.graph import describe
from qconvert.qdq import Pair, pair_of
from qconvert.quant import dequantize, quantize
from qconvert.runtimes import Tap
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.verification.departure import Departure
from qconvert.verification.metrics import cosine, finite

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from qconvert.quant import F32, I32

__all__ = ["Stepper", "Steps", "Tapped"]


@runtime_checkable
class Tapped(Protocol):
    """A runtime that shows values from within the network."""

    @property
    def values(self) -> Collection[str]:
        """Names, in the intermediate representation, of the values it has."""

    def tap(self, inputs: Mapping[str, F32], names: Sequence[str]) -> dict[str, Tap]:
        """Run once and read values by their names in the intermediate representation.

        Args:
            inputs: Network input → array.
            names: What to read, among `values`.
        """


@dataclass(frozen=True, slots=True)
class Steps:
    """How well an artifact follows its simulation, step by step.

    Attributes:
        compared: Values that were compared.
        worst: The value that agrees least.
        cosine: Its smallest cosine over all samples.
        codes: How many codes were compared, over all values and samples.
        differing: How many of them differ.
        largest: The largest difference, in codes.
        furthest: The value that has it; empty where nothing differs.
        departure: The first value, in the order of the network, that leaves the tolerance.
    """

    compared: int
    worst: str
    cosine: float
    codes: int = 0
    differing: int = 0
    largest: int = 0
    furthest: str = ""
    departure: Departure | None = None

    def to_json(self) -> dict[str, Any]:
        """The `layers` object of a verification."""
        document: dict[str, Any] = {
            "compared": self.compared,
            "worst": self.worst,
            "cosine": finite(self.cosine),
            "codes": self.codes,
            "differing": self.differing,
            "largest": self.largest,
            "furthest": self.furthest,
        }
        if self.departure is not None:
            document["departure"] = self.departure.to_json()
        return document


class Stepper:
    """Compares step by step, one sample after the other.

    Args:
        model: The Q/DQ model.
        outputs: Network outputs that can be compared number by number.
        values: What the artifact can show. Where it lacks a quantized activation the simulation
            computes on: that step is longer.
        above: The least cosine of a step, itself not enough.
        largest: By how many codes a quantized activation may differ, whatever its cosine: at few
            bits a code is a large part of a number. None: its cosine counts.
    """

    def __init__(
        self,
        model: ir.Model,
        outputs: Sequence[str],
        values: Collection[str],
        above: float,
        largest: int | None = None,
    ) -> None:
        self._above = above
        self._largest = largest
        self._departures: dict[str, Departure] = {}
        self._pairs: dict[str, Pair] = {}
        copy = model.clone()
        for node in tuple(copy.graph):
            pair = pair_of(node.outputs[0]) if node.op_type == "DequantizeLinear" else None
            if pair is not None and (pair.source.is_graph_input() or pair.source.name in values):
                self._pairs[str(pair.source.name)] = pair
        computed = {str(v.name): v for node in copy.graph for v in node.outputs}
        # What stands in front of a pair is another step's.
        ends = {id(pair.output) for pair in self._pairs.values()}
        wanted = {*self._pairs, *outputs}
        self._steps = {name: _step(computed[name], ends) for name in computed if name in wanted}
        self._names = [
            *(name for name in self._pairs if name in computed),
            *(name for name in outputs if name in values and name not in self._pairs),
        ]
        self._cut(copy, [computed[name] for name in self._names])
        # onnxruntime 1.31 may fuse away a value that is an output here and a reader's input too,
        # and then refuses the graph.
        self._runtime = OnnxRuntime(copy, optimize=False)
        self._cosines: dict[str, float] = {}
        self._counts = _Counts()

    def _cut(self, copy: ir.Model, outputs: Sequence[ir.Value]) -> None:
        """Make every quantized activation an input of the graph."""
        graph = copy.graph
        graph.outputs.clear()
        for pair in self._pairs.values():
            fed = ir.val(f"{pair.source.name}/fed", type=pair.source.type, shape=pair.source.shape)
            graph.inputs.append(fed)
            pair.output.replace_all_uses_with(fed)
        graph.outputs.extend(outputs)
        common.RemoveUnusedNodesPass()(copy)
        for value in [value for value in graph.inputs if not list(value.uses())]:
            graph.inputs.remove(value)

    def close(self) -> None:
        """Release the runtime."""
        self._runtime.close()

    def add(self, inputs: Mapping[str, F32], artifact: Tapped) -> None:
        """Compare on one sample."""
        found = {name: Tap(array, codes=False) for name, array in inputs.items()}
        wanted_names = dict.fromkeys([*self._pairs, *self._names])
        shown = [name for name in wanted_names if name not in inputs or name in artifact.values]
        found |= artifact.tap(inputs, shown)
        real = {name: _on_grid(found[name], pair) for name, pair in self._pairs.items()}
        feeds = {f"{name}/fed": array for name, array in real.items()} | dict(inputs)
        wanted = self._runtime.run(feeds)
        for name in self._names:
            given, right = real.get(name, found[name].values), wanted[name]
            close = False
            if name in self._pairs:
                params = self._pairs[name].params
                codes = quantize(right, params)
                distance = self._counts.add(name, codes, quantize(given, params))
                close = self._largest is not None and distance <= self._largest
                right = dequantize(codes, params)
            measured = cosine(right, given)
            if not (close or measured > self._above) and name not in self._departures:
                self._departures[name] = Departure.of(name, self._steps[name], right, given)
            self._cosines[name] = float(np.minimum(self._cosines.get(name, 1.0), measured))

    def result(self) -> Steps | None:
        """What was measured; None when nothing could be."""
        if not self._cosines:
            return None
        # A cosine that is not a number is the worst of all.
        worst = min(self._cosines, key=lambda name: np.nan_to_num(self._cosines[name], nan=-2.0))
        first = next((name for name in self._steps if name in self._departures), None)
        departure = None if first is None else self._departures[first]
        counts = self._counts
        return Steps(
            len(self._cosines),
            worst,
            self._cosines[worst],
            counts.codes,
            counts.differing,
            counts.largest,
            counts.furthest,
            departure,
        )


@dataclass(slots=True)
class _Counts:
    """Differences in codes; see `Steps`."""

    codes: int = 0
    differing: int = 0
    largest: int = 0
    furthest: str = ""

    def add(self, name: str, wanted: I32, given: I32) -> int:
        """Take in the codes of one value; returns its largest difference."""
        distance = np.abs(wanted - given)
        self.codes += distance.size
        self.differing += int(np.count_nonzero(distance))
        most = int(distance.max(initial=0))
        if most > self.largest:
            self.largest, self.furthest = most, name
        return most


def _step(value: ir.Value, ends: Collection[int]) -> str:
    """The layers of the step that ends at `value`, as messages name them."""
    seen: dict[int, ir.Node] = {}
    pending = [value]
    while pending:
        current = pending.pop()
        node = current.producer()
        if id(current) in ends or node is None or id(node) in seen:
            continue
        seen[id(node)] = node
        pending.extend(given for given in node.inputs if given is not None)
    last = value.producer()
    assert last is not None
    own = [node for node in last.graph or () if id(node) in seen]
    first = next((node for node in own if node.op_type != "DequantizeLinear"), last)
    return describe(last) if first is last else f"{describe(first)} to {describe(last)}"


def _on_grid(tap: Tap, pair: Pair) -> F32:
    """What the artifact reads at a pair, as real numbers in the shape the graph gives them."""
    assert pair.source.shape is not None
    values = np.asarray(tap.values, dtype=np.float32).reshape(pair.source.shape.numpy())
    codes = np.rint(values).astype(np.int32) if tap.codes else quantize(values, pair.params)
    return dequantize(codes, pair.params)

"""Runs the float network over data and shows every planned activation to an observer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from qconvert.calibration.kept import Kept
from qconvert.errors import CalibrationError
from qconvert.graph import constant, input_shapes
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from qconvert.calibration.observers import Observer
    from qconvert.dataset.reader import Dataset
    from qconvert.progress import Progress
    from qconvert.quant import F32

__all__ = ["Feed"]


class Feed:
    """A float model whose inner values can be watched.

    Args:
        model: The optimized float model.
        names: Values to watch: network inputs, results of nodes, constants.
        threads: Threads of the runtime; 0: one per core.
        again: Those of `names` that `observe_again` will show.
        room: Bytes that may be kept of them, from one pass to the other.
    """

    def __init__(
        self,
        model: ir.Model,
        names: Sequence[str],
        threads: int,
        *,
        again: Collection[str] = (),
        room: int = 0,
    ) -> None:
        self._threads = threads
        self._constants: dict[str, F32] = {}
        for name in names:
            held = constant(model.graph.initializers.get(name))
            if held is not None:
                self._constants[name] = held.astype("float32")
        watched = [name for name in names if name not in self._constants]
        inputs = input_shapes(model)
        made = (str(value.name) for node in model.graph for value in node.outputs)
        place = {name: index for index, name in enumerate(made)}
        computed = sorted((name for name in watched if name not in inputs), key=place.__getitem__)
        self._names = [*(name for name in watched if name in inputs), *computed]
        self._kept_names = [name for name in self._names if name in again]
        self._room = room
        self._kept = Kept((), 0, 0)
        self._model = with_outputs(model, computed)
        self._runtime = OnnxRuntime(self._model, threads=threads) if computed else None

    def walk(self, dataset: Dataset) -> Iterator[tuple[str, dict[str, F32]]]:
        """Every sample's name and its watched values, constants left out."""
        for sample in dataset:
            values = dict(sample.inputs)
            if self._runtime is not None:
                values.update(self._runtime.run(sample.inputs))
            yield sample.name, {name: values[name] for name in self._names}

    def observe(
        self, dataset: Dataset, observers: Mapping[str, Observer], progress: Progress
    ) -> None:
        """Show all data to `observers` (value name → observer), one step per sample.

        Raises:
            CalibrationError: If a value is not finite; names the sample and the tensor.
        """
        self._kept = Kept(self._kept_names, self._room, len(dataset))
        self._show_constants(observers)
        for sample, values in self.walk(dataset):
            _show(sample, values, observers)
            self._kept.add(sample, values)
            progress.advance(sample)

    def observe_again(
        self, dataset: Dataset, observers: Mapping[str, Observer], progress: Progress
    ) -> None:
        """Show the data of `observe` once more, to observers that leave zeros out.

        What was kept is shown without its zeros, and in one axis. Only the part of the network
        that makes the rest runs again, and from here on the feed watches nothing else.
        """
        self._show_constants(observers)
        kept = self._kept
        self._narrow([name for name in observers if name not in kept.names])
        walk = self.walk(dataset) if self._names else ((name, {}) for name in kept.samples)
        for index, (sample, values) in enumerate(walk):
            _show(sample, values | kept.of(index), observers)
            progress.advance(sample)

    def _narrow(self, names: Collection[str]) -> None:
        """Watch nothing but `names`, with the part of the network that they need."""
        everything = self._names
        self._names = [name for name in everything if name in names]
        made = {output.name for output in self._model.graph.outputs}
        computed = [name for name in self._names if name in made]
        if not computed:
            self.close()
        elif len(computed) < len(made):
            self.close()  # first, or the weights are in memory twice
            self._model = _beginning(self._model, computed)
            self._runtime = OnnxRuntime(self._model, threads=self._threads)

    def _show_constants(self, observers: Mapping[str, Observer]) -> None:
        """Show what is the same for all data."""
        _show("a weight of the model", self._constants, observers)

    def close(self) -> None:
        """Release the runtime."""
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _beginning(whole: ir.Model, names: Sequence[str]) -> ir.Model:
    """The part of `whole` that makes `names`, to the same bits.

    What the other part reads, and what was an output, stays one: else the runtime could fuse nodes
    that it could not fuse in the whole, and round differently.
    """
    part = with_outputs(whole, names)
    made = {value.name for node in part.graph for value in node.outputs}
    edge = [
        str(value.name)
        for node in whole.graph
        for value in node.outputs
        if value.name in made
        and value.name not in names
        and (
            value.is_graph_output()
            or any(user.outputs[0].name not in made for user in value.consumers())
        )
    ]
    return with_outputs(whole, [*names, *edge]) if edge else part


def _show(sample: str, values: Mapping[str, F32], observers: Mapping[str, Observer]) -> None:
    """Show values to their observers, and name the culprit where one is not finite."""
    for name, value in values.items():
        if name not in observers:
            continue
        try:
            observers[name].update(value)
        except ValueError as error:
            raise CalibrationError(
                f"the float network makes a NaN or an infinity from '{sample}'",
                at=f"tensor '{name}'",
                why="such a value has no scale",
                fix="check the preprocessing (mean and norm) and the model's weights",
            ) from error

"""Runs the float network over data and shows every planned activation to an observer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from qconvert.errors import CalibrationError
from qconvert.graph import constant, input_shapes
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
        keep: Bytes of watched values that may be kept from the first walk, for further walks over
            the same data.
    """

    def __init__(
        self, model: ir.Model, names: Sequence[str], threads: int, *, keep: int = 0
    ) -> None:
        self._room = keep
        self._kept: list[tuple[str, dict[str, F32]]] = []
        self._inputs = set(input_shapes(model))
        self._constants: dict[str, F32] = {}
        for name in names:
            held = constant(model.graph.initializers.get(name))
            if held is not None:
                self._constants[name] = held.astype("float32")
        self._names = [name for name in names if name not in self._constants]
        computed = [name for name in self._names if name not in self._inputs]
        self._runtime = None
        if computed:
            self._runtime = OnnxRuntime(with_outputs(model, computed), threads=threads)

    def walk(self, dataset: Dataset) -> Iterator[tuple[str, dict[str, F32]]]:
        """Every sample's name and its watched values, constants left out."""
        yield from self._kept
        known, count = len(self._kept), len(dataset)
        if known == count:
            return
        rest = dataset.subset(list(range(known, count))) if known else dataset
        for sample in rest:
            values = dict(sample.inputs)
            if self._runtime is not None:
                values.update(self._runtime.run(sample.inputs))
            watched = {name: values[name] for name in self._names}
            self._room -= sum(value.nbytes for value in watched.values())
            if self._room >= 0:  # once it is negative it stays so: what is kept is a beginning
                self._kept.append((sample.name, watched))
            yield sample.name, watched

    def observe(
        self, dataset: Dataset, observers: Mapping[str, Observer], progress: Progress
    ) -> None:
        """Show all data to `observers` (value name → observer), one step per sample.

        Raises:
            CalibrationError: If a value is not finite; names the sample and the tensor.
        """
        for name, held in self._constants.items():
            if name in observers:
                _show("a weight of the model", name, held, observers[name])
        for sample, values in self.walk(dataset):
            for name, value in values.items():
                if name in observers:
                    _show(sample, name, value, observers[name])
            progress.advance(sample)

    def close(self) -> None:
        """Release the runtime."""
        if self._runtime is not None:
            self._runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _show(sample: str, name: str, value: F32, observer: Observer) -> None:
    """Show one value, and name the culprit where it is not finite."""
    try:
        observer.update(value)
    except ValueError as error:
        raise CalibrationError(
            f"the float network makes a NaN or an infinity from '{sample}'",
            at=f"tensor '{name}'",
            why="such a value has no scale",
            fix="check the preprocessing (mean and norm) and the model's weights",
        ) from error

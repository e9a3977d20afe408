"""ncnn's `.param` and `.bin` → `onnx_ir.Model`.

The topology is checked as a whole before a weight is read: every layer that cannot be expressed
is named at once. Value names are blob names, node names are layer names; what a Split copies
keeps the name of the original.
"""

from __future__ import annotations

import contextlib
import mmap
import re
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import onnx_ir as ir

from qconvert.errors import ModelFormatError, Problem, UnsupportedError
from qconvert.formats.ncnn_bin import BinReader
from qconvert.formats.ncnn_param import Layer, Network, parse
from qconvert.formats.ncnn_weights import slots
from qconvert.frontends.ncnn.builder import FIX_UNSUPPORTED, Builder
from qconvert.frontends.ncnn.registry import CONVERTERS
from qconvert.graph import IR_VERSION, OPSET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from qconvert.quant import F32
    from qconvert.report import Report
    from qconvert.source import ReadOptions, Source

__all__ = ["operators", "read"]

_PARAM_LIMIT: Final = 64 << 20
_RANDOM_LIMIT: Final = 200_000_000  # VGG-19 has 144 million
_SPLIT_ALIAS: Final = re.compile(r".*_splitncnn_\d+")


class _Weights(Protocol):
    """Where weights come from: a file, or chance."""

    def raw(self, count: int, what: str) -> F32:
        """`count` float32 values."""

    def tagged(self, count: int, what: str) -> F32 | npt.NDArray[np.int8]:
        """`count` values of the type their tag names."""


class _RandomWeights:
    """Seeded random weights, for a topology without a `.bin`.

    Raises:
        ModelFormatError: When a network wants more than 200 million numbers.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._left = _RANDOM_LIMIT

    def raw(self, count: int, what: str) -> F32:
        """Positive numbers: some of these are variances and scales."""
        self._charge(count, what)
        numbers = self._rng.random(count, dtype=np.float32)
        numbers += np.float32(0.5)
        return numbers

    def tagged(self, count: int, what: str) -> F32:
        """Small numbers around 0."""
        self._charge(count, what)
        numbers = self._rng.standard_normal(count, dtype=np.float32)
        numbers *= np.float32(0.05)
        return numbers

    def _charge(self, count: int, what: str) -> None:
        """Refuse absurd sizes before memory is taken."""
        self._left -= count
        if self._left < 0:
            raise ModelFormatError(
                f"the {what} has {count} values",
                why=f"random weights stop at {_RANDOM_LIMIT} in all",
            )


def operators() -> Sequence[str]:
    """Every layer type that is read, sorted."""
    return sorted({*CONVERTERS, "Input", "Split"})


def read(source: Source, options: ReadOptions, report: Report) -> ir.Model:
    """Read a network.

    Args:
        source: The `.param`, and the `.bin` unless no layer has weights.
        options: `input_shapes` (for an Input layer without a shape, or instead of it),
            `random_weights` and `seed`.
        report: Gets a warning about bytes behind the last weight, and about quantized parts that
            ncnn computes differently.

    Returns:
        A float32 model, with Q/DQ nodes where layers are stored as int8.

    Raises:
        ModelFormatError: If a file is missing, damaged, or not of the other file.
        UnsupportedError: If layers cannot be expressed; all of them are named.
    """
    network = parse(_text(source.model), origin=source.model.name)
    _refuse_unknown(network)
    shapes = _input_shapes(network, options, source.model.name)
    with _weights(source, options, network) as weights:
        model = _build(network, shapes, weights, report)
        if isinstance(weights, BinReader) and weights.left:
            report.warn(
                f"{weights.left} bytes of the .bin are left over: it may belong to another .param"
            )
    model.graph.name = re.sub(r"\W", "_", source.model.stem) or "network"
    return model


def _text(path: Path) -> str:
    """The content of a .param."""
    try:
        if path.stat().st_size > _PARAM_LIMIT:
            raise ModelFormatError(
                "the .param is too large", at=str(path), why="a real one has some hundred lines"
            )
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ModelFormatError(
            "the .param cannot be read", at=str(path), why=error.strerror or str(error)
        ) from error


def _refuse_unknown(network: Network) -> None:
    """Name every layer that cannot be expressed."""
    problems = []
    for layer in network.layers:
        if layer.kind in {"Input", "Split"}:
            continue
        at = f"layer '{layer.name}' ({layer.place})"
        entry = CONVERTERS.get(layer.kind)
        if entry is None:
            problems.append(Problem(f"layer type '{layer.kind}'", at))
        elif entry.why_not is not None and (reason := entry.why_not(layer)):
            problems.append(Problem(f"{layer.kind} '{layer.name}'", at, reason))
    if problems:
        raise UnsupportedError.of(problems, who="the ncnn reader", fix=FIX_UNSUPPORTED)


def _input_shapes(
    network: Network, options: ReadOptions, origin: str
) -> dict[str, tuple[int, ...]]:
    """Blob → dims of every Input layer."""
    inputs = {
        layer.outputs[0]: layer
        for layer in network.layers
        if layer.kind == "Input" and layer.outputs
    }
    for name in options.input_shapes:
        if name not in inputs:
            raise ModelFormatError(
                f"there is no input '{name}'",
                at=origin,
                why=f"the inputs are {', '.join(inputs) or 'none'}",
                fix="name one of these with --input-shape",
            )
    return {name: _dims(layer, options.input_shapes.get(name)) for name, layer in inputs.items()}


def _dims(layer: Layer, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    """Dims of one Input layer: as asked for, as declared, or as hinted."""
    width, height, channels, depth = (layer.int(key, 0) for key in (0, 1, 2, 11))
    declared = [size for size in (channels, depth, height, width) if size]
    hints = layer.ints(30)
    if wanted is not None:
        dims = wanted[1:]
    elif declared:
        dims = tuple(declared)
    elif len(hints) in {4, 5} and 1 <= hints[0] <= 4:
        dims = _hinted(hints)
    else:
        raise ModelFormatError(
            f"the shape of input '{layer.outputs[0]}' is not known",
            at=layer.place,
            why="its Input layer declares none",
            fix=f"give it: --input-shape {layer.outputs[0]}=1,3,224,224",
        )
    if not 1 <= len(dims) <= 4 or any(not 1 <= dim < 2**31 for dim in dims):
        raise ModelFormatError(
            f"input '{layer.outputs[0]}' cannot have shape {[1, *dims]}",
            at=layer.place,
            why="a blob has 1 to 4 dimensions behind the batch axis, each at least 1",
            fix="correct --input-shape" if wanted is not None else "",
        )
    return dims


def _hinted(hints: tuple[int, ...]) -> tuple[int, ...]:
    """Dims in a shape hint: (dims, w, h, d, c), in old files (dims, w, h, c)."""
    rank, width, height, *rest = hints
    channels, depth = rest[-1], rest[0]
    return ((width,), (height, width), (channels, height, width), (channels, depth, height, width))[
        rank - 1
    ]


@contextlib.contextmanager
def _weights(source: Source, options: ReadOptions, network: Network) -> Iterator[_Weights]:
    """Where the weights of the network come from."""
    if source.weights is None:
        if options.random_weights:
            yield _RandomWeights(options.seed)
            return
        if any(slots(layer) for layer in network.layers):
            raise ModelFormatError(
                "the network has weights, and there is no .bin",
                at=str(source.model),
                fix=f"give the .bin as well: {source.model.name} {source.model.stem}.bin",
            )
        yield BinReader(b"", origin="no .bin")
        return
    try:
        with source.weights.open("rb") as file:
            if not source.weights.stat().st_size:  # an empty file cannot be mapped
                yield BinReader(b"", origin=source.weights.name)
                return
            # Freed with the reader: closing it here would fail while an error still refers to it.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        yield BinReader(memoryview(content), origin=source.weights.name)
    except OSError as error:
        raise ModelFormatError(
            "the .bin cannot be read", at=str(source.weights), why=error.strerror or str(error)
        ) from error


def _build(
    network: Network,
    shapes: dict[str, tuple[int, ...]],
    weights: _Weights,
    report: Report,
) -> ir.Model:
    """The graph of the network."""
    names = {layer.name for layer in network.layers}
    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="network")
    model = ir.Model(graph, ir_version=IR_VERSION, producer_name="qconvert")
    b = Builder(report, model, taken={*names, *network.blobs})
    inputs = []
    for layer in network.layers:
        b.begin(layer, _layer_weights(layer, weights))
        if layer.kind == "Input":
            inputs += _input(b, layer, shapes)
        elif layer.kind == "Split":
            b.alias(layer.outputs, b.input())
        else:
            made = CONVERTERS[layer.kind].convert(b, layer)
            b.finish(made if isinstance(made, list) else [made])
    outputs = _outputs(b, network)
    graph.inputs.extend(inputs)
    graph.extend(b.nodes)
    for value in b.initializers:
        graph.initializers[str(value.name)] = value
    graph.outputs.extend(outputs)
    return model


def _layer_weights(layer: Layer, weights: _Weights) -> dict[str, npt.NDArray[np.generic]]:
    """The weights of one layer by slot name."""
    return {
        slot.name: (weights.tagged if slot.tagged else weights.raw)(
            slot.count, f"{slot.name} of '{layer.name}'"
        )
        for slot in slots(layer)
    }


def _input(b: Builder, layer: Layer, shapes: dict[str, tuple[int, ...]]) -> list[ir.Value]:
    """The network inputs an Input layer stands for."""
    if len(layer.outputs) != 1 or layer.inputs:
        raise b.bad(f"Input '{layer.name}' should make one blob of nothing")
    dims = shapes[layer.outputs[0]]
    b.check(dims)
    value = ir.val(layer.outputs[0], dtype=ir.DataType.FLOAT, shape=[1, *dims])
    b.alias(layer.outputs, value)
    return [value]


def _outputs(b: Builder, network: Network) -> list[ir.Value]:
    """Blobs that nobody reads, once each, in the order in which they are made."""
    read = {blob for layer in network.layers for blob in layer.inputs}
    outputs: list[ir.Value] = []
    for layer in network.layers:
        for blob in layer.outputs:
            if blob in read or layer.kind == "Input":
                continue
            value = b.values[blob]
            renamed = blob != value.name and not _SPLIT_ALIAS.fullmatch(blob)
            if renamed or value.producer() is None:
                b.begin(layer, {})
                value = b.emit("Identity", [value], b.dims(value))
                value.name = blob
            if value not in outputs:
                outputs.append(value)
    if not outputs:
        raise ModelFormatError(
            "the network has no output",
            at=network.layers[-1].place if network.layers else "",
            why="every blob is read" if network.layers else "it has no layers",
        )
    return outputs

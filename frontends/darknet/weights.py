"""Where the numbers of a Darknet network come from: a .weights file, or a seeded generator.

A .weights file is a header and then float32 arrays without names, in the order of the layers
(`load_weights_upto` in src/parser.c). It is mapped, not read: an array is a view of the file.
"""

from __future__ import annotations

import math
import mmap
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import onnx_ir as ir
from typing_extensions import override

from qconvert.errors import ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qconvert.quant import F32
    from qconvert.report import Report

__all__ = ["CountedWeights", "FileWeights", "NoWeights", "RandomWeights", "Weights"]

_CHUNK: Final = 1 << 14  # floats looked at together: too few for BLAS to wake other threads
_ZEROS: Final = np.zeros(_CHUNK, dtype=np.float32)


class Weights(Protocol):
    """Arrays in the order of the layers.

    Attributes:
        transposed: Whether matrices of [connected] are stored [in, out].
        batchnorm_biases: Whether [batchnorm] stores biases; pjreddie's Darknet does not.
    """

    transposed: bool
    batchnorm_biases: bool

    def take(self, shape: Sequence[int], *, kind: str, layer: str, place: str) -> ir.TensorProtocol:
        """The next array.

        Args:
            shape: Its shape; every dimension > 0.
            kind: `weight`, `bias`, `scale`, `mean` or `variance`.
            layer: The layer's name, for messages.
            place: The layer's place, for messages.

        Raises:
            ModelFormatError: If there is none, or it holds a NaN or an infinity.
        """


class FileWeights:
    """The arrays of a .weights file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._floats, self._start, self._tail, self.transposed = _open(path)
        self._next = 0
        self.batchnorm_biases = True

    @property
    def count(self) -> int:
        """How many floats the file holds after its header."""
        return len(self._floats)

    def take(self, shape: Sequence[int], *, kind: str, layer: str, place: str) -> ir.TensorProtocol:
        """See `Weights.take`."""
        count = math.prod(shape)
        left = len(self._floats) - self._next
        if count > left:
            raise ModelFormatError(
                f"the weights file ends in layer '{layer}'",
                at=f"{place}; {self._path.name} at byte {self._start + 4 * self._next}",
                why=f"its {kind} needs {count} numbers, and {left} are left",
                fix="give the weights that were trained with this cfg (a .conv.NN file holds only "
                "the first layers)",
            )
        array = self._floats[self._next : self._next + count]
        self._next += count
        if not _finite(array):
            raise ModelFormatError(
                f"the weights of layer '{layer}' hold a NaN or an infinity",
                at=f"{place}; {self._path.name}",
                why=f"in its {kind}: the training diverged, or the file is damaged or does not "
                "belong to this cfg",
            )
        return ir.Tensor(array.reshape(shape))

    def finish(self, report: Report) -> None:
        """Warn of bytes that no layer took."""
        extra = 4 * (len(self._floats) - self._next) + self._tail
        if extra:
            report.warn(
                f"{self._path.name} has {extra} bytes more than the network takes: "
                "do the cfg and the weights belong together?"
            )


class RandomWeights:
    """Seeded random arrays, made when somebody looks at them.

    Args:
        seed: Same seed, same network: same arrays.
    """

    transposed = False
    batchnorm_biases = True

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._arrays = 0

    def take(self, shape: Sequence[int], *, kind: str, layer: str, place: str) -> ir.TensorProtocol:
        """See `Weights.take`; weights keep the variance of their input."""
        del layer, place
        key = (self._seed, self._arrays)
        self._arrays += 1
        shape = tuple(shape)
        return ir.LazyTensor(
            lambda: ir.Tensor(_random(key, kind, shape)),
            dtype=ir.DataType.FLOAT,
            shape=ir.Shape(shape),
        )


class CountedWeights(RandomWeights):
    """Random arrays that are only counted: how many numbers a network takes.

    Attributes:
        count: Numbers taken so far.
    """

    def __init__(self) -> None:
        super().__init__(0)
        self.count = 0

    @override
    def take(self, shape: Sequence[int], *, kind: str, layer: str, place: str) -> ir.TensorProtocol:
        """See `Weights.take`."""
        self.count += math.prod(shape)
        return super().take(shape, kind=kind, layer=layer, place=place)


class NoWeights:
    """No weights at all: fine for a network that needs none."""

    transposed = False
    batchnorm_biases = True

    def take(self, shape: Sequence[int], *, kind: str, layer: str, place: str) -> ir.TensorProtocol:
        """Refuse."""
        raise ModelFormatError(
            f"layer '{layer}' needs weights, and there is no weights file",
            at=place,
            why=f"its {kind} has {math.prod(shape)} numbers",
            fix="give the .weights file beside the .cfg",
        )


def _open(path: Path) -> tuple[F32, int, int, bool]:
    """A mapped file: (floats, where they start, bytes after the last, transposed).

    The counter of seen images has 8 bytes from version 0.2 on, and 4 in older files and in those
    with the transposition flag (`load_weights_upto` of pjreddie's src/parser.c).
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except (OSError, ValueError) as error:
        raise ModelFormatError(
            "the weights file cannot be read", at=str(path), why=str(error)
        ) from error
    header = np.frombuffer(content, dtype="<i4", count=min(3, size // 4))
    major, minor = (int(header[0]), int(header[1])) if len(header) == 3 else (-1, -1)
    transposed = major > 1000 or minor > 1000
    start = 12 + (8 if major * 10 + minor >= 2 and not transposed else 4)
    if min(major, minor) < 0 or max(major, minor) > 1 << 16 or size < start:
        raise ModelFormatError(
            "this is not a Darknet weights file",
            at=str(path),
            why=f"its {size} bytes do not begin with a version and a counter",
            fix="give the .weights file of the network",
        )
    count, tail = divmod(size - start, 4)
    if not count:
        return np.zeros(0, np.float32), start, tail, transposed
    floats = np.frombuffer(content, dtype="<f4", count=count, offset=start)
    return floats, start, tail, transposed


def _finite(array: F32) -> bool:
    """Whether no number is NaN or infinite, without a copy of the array."""
    with np.errstate(invalid="ignore"):
        for begin in range(0, array.size, _CHUNK):
            chunk = array[begin : begin + _CHUNK]
            # 0 * x is 0 for every number, and NaN for a NaN or an infinity.
            if np.dot(chunk, _ZEROS[: chunk.size]) != 0:
                return False
    return True


def _random(key: tuple[int, int], kind: str, shape: tuple[int, ...]) -> F32:
    """Numbers such as a trained network has: activations neither vanish nor explode."""
    rng = np.random.default_rng(key)
    if kind in {"scale", "variance"}:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    deviation = np.float32(0.1 if kind != "weight" else math.sqrt(2 / math.prod(shape[1:])))
    return rng.standard_normal(shape, dtype=np.float32) * deviation

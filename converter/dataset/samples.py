"""Where samples come from: pictures on disk, pictures in an array, ready arrays.

A source has two halves. `fetch` touches shared files and runs in order on one thread; `prepare`
does the heavy work (decoding, resizing) and may run on many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from qconvert.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qconvert.dataset.arrays import ArrayFile
    from qconvert.dataset.preprocessing import Preprocessing
    from qconvert.quant import F32

__all__ = ["PictureArray", "PictureFiles", "ReadyArrays", "Sample", "Source"]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One ready input of a network.

    Attributes:
        name: The file, or the array's row (`x[17]`); what messages call it.
        inputs: Network input name → float32 array [1, ...], finite.
        label: Class index, where one is known.
    """

    name: str
    inputs: dict[str, F32]
    label: int | None = None


class Source(Protocol):
    """Samples by index."""

    def __len__(self) -> int:
        """How many there are."""

    def fetch(self, index: int) -> Any:  # noqa: ANN401 - whatever `prepare` wants
        """Read what `prepare` needs; called in order, on one thread."""

    def prepare(self, index: int, raw: Any) -> Sample:  # noqa: ANN401 - what `fetch` returned
        """Make the sample; called on any thread."""

    def close(self) -> None:
        """Let go of open files."""


@dataclass(frozen=True, slots=True)
class PictureFiles:
    """Pictures on disk.

    Attributes:
        paths: The pictures, in order.
        labels: One per picture; None when there are none.
        input: The network input they feed.
        preprocessing: How they become inputs.
    """

    paths: Sequence[Path]
    labels: Sequence[int] | None
    input: str
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, index: int) -> Path:
        """The path; decoding is for `prepare`."""
        return self.paths[index]

    def prepare(self, index: int, raw: Path) -> Sample:
        """Decode and preprocess.

        Raises:
            CalibrationError: If the picture does not decode; names the file.
        """
        try:
            with Image.open(raw) as image:
                image.load()
                array = self.preprocessing.apply(image)
        except CalibrationError as error:
            raise CalibrationError(error.what, at=str(raw), why=error.why, fix=error.fix) from error
        except Exception as error:  # Pillow's decoders raise anything on a damaged file
            raise CalibrationError(
                f"the picture '{raw.name}' cannot be decoded",
                at=str(raw),
                why=getattr(error, "strerror", None) or str(error) or type(error).__name__,
                fix="replace it or take it out of the data",
            ) from error
        label = None if self.labels is None else self.labels[index]
        return Sample(raw.name, {self.input: array}, label)

    def close(self) -> None:
        """Nothing stays open."""


@dataclass(frozen=True, slots=True)
class PictureArray:
    """Pictures in one uint8 array, [N, H, W] or [N, H, W, C].

    Attributes:
        array: The pictures.
        labels: One per picture, or None.
        input: The network input they feed.
        preprocessing: How they become inputs.
    """

    array: ArrayFile
    labels: Sequence[int] | None
    input: str
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.array)

    def fetch(self, index: int) -> Any:  # noqa: ANN401 - uint8 pixels
        """One picture's pixels."""
        return self.array.row(index)

    def prepare(self, index: int, raw: Any) -> Sample:  # noqa: ANN401 - uint8 pixels
        """Preprocess.

        Raises:
            CalibrationError: If the picture is smaller than the cut; names the row.
        """
        label = None if self.labels is None else self.labels[index]
        name = f"x[{index}]"
        try:
            return Sample(name, {self.input: self.preprocessing.apply(raw)}, label)
        except CalibrationError as error:
            raise CalibrationError(error.what, at=name, why=error.why, fix=error.fix) from error

    def close(self) -> None:
        """Close the array."""
        self.array.close()


@dataclass(frozen=True, slots=True)
class ReadyArrays:
    """Float arrays that need no preprocessing, one per network input.

    Attributes:
        arrays: Network input name → array [N, ...].
        shapes: Network input name → shape [1, ...].
        labels: One per sample, or None.
    """

    arrays: Mapping[str, ArrayFile]
    shapes: Mapping[str, tuple[int, ...]]
    labels: Sequence[int] | None

    def __len__(self) -> int:
        return min(len(array) for array in self.arrays.values())

    def fetch(self, index: int) -> dict[str, Any]:
        """One row of every array."""
        return {name: array.row(index) for name, array in self.arrays.items()}

    def prepare(self, index: int, raw: dict[str, Any]) -> Sample:
        """Check the numbers.

        Raises:
            CalibrationError: If a value is not finite; names the array and the row.
        """
        inputs = {}
        for name, row in raw.items():
            with np.errstate(over="ignore"):  # a double beyond float32 becomes inf: told below
                array = np.asarray(row, np.float32).reshape(self.shapes[name])
            if not math.isfinite(float(np.abs(array).max(initial=0.0))):
                raise CalibrationError(
                    "the data hold a value that is not finite",
                    at=f"{name}[{index}]",
                    why="a NaN or an infinity has no integer code",
                    fix="look at how the array was made",
                )
            inputs[name] = array
        label = None if self.labels is None else self.labels[index]
        return Sample(f"{next(iter(raw))}[{index}]", inputs, label)

    def close(self) -> None:
        """Close the arrays."""
        for array in self.arrays.values():
            array.close()

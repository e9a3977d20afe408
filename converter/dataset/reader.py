"""Opens calibration and evaluation data: folders, lists, and arrays.

Samples come in a fixed order, decoded by threads a few steps ahead of the network; memory does
not depend on how many there are.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.content import read_text
from qconvert.dataset import labels as label_files
from qconvert.dataset.arrays import array_names, open_array
from qconvert.dataset.samples import PictureArray, PictureFiles, ReadyArrays, Sample
from qconvert.errors import CalibrationError, ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from qconvert.dataset.arrays import ArrayFile
    from qconvert.dataset.preprocessing import Preprocessing
    from qconvert.dataset.samples import Source

__all__ = ["IMAGE_SUFFIXES", "Dataset", "Sample", "open_dataset"]

IMAGE_SUFFIXES: Final = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
_MOST_JOBS: Final = 8


class Dataset:
    """Samples in a fixed order, as often as wanted.

    Args:
        source: Where they come from.
        indices: Which of them, in which order; None: all.
        jobs: Threads that decode ahead; 0: one per core, 8 at most.
    """

    def __init__(
        self, source: Source, indices: Sequence[int] | None = None, *, jobs: int = 0
    ) -> None:
        self._source = source
        self._indices = range(len(source)) if indices is None else tuple(indices)
        self._jobs = jobs or min(os.cpu_count() or 1, _MOST_JOBS)

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Sample]:
        ahead = 2 * self._jobs
        pool = ThreadPoolExecutor(self._jobs, thread_name_prefix="qconvert-decode")
        waiting: deque[Future[Sample]] = deque()
        try:
            indices = iter(self._indices)
            while True:
                for index in itertools.islice(indices, ahead - len(waiting)):
                    raw = self._source.fetch(index)
                    waiting.append(pool.submit(self._source.prepare, index, raw))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            self._source.close()

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The samples at `indices` of this dataset, in that order."""
        return Dataset(self._source, [self._indices[i] for i in indices], jobs=self._jobs)


def open_dataset(
    path: Path,
    inputs: Mapping[str, tuple[int, ...]],
    *,
    preprocessing: Preprocessing | None,
    labels: Path | None = None,
    jobs: int = 0,
) -> Dataset:
    """Open data for a network.

    Args:
        path: A folder of pictures (not recursive, sorted by name), one picture, a `.txt` list of
            pictures (relative to the list or to the working directory), or a `.npy`/`.npz`:
            float arrays [N, ...] are ready inputs, by input name; a uint8 array `x` [N, H, W] or
            [N, H, W, C] holds pictures (RGB).
        inputs: Network input name → shape, batch 1.
        preprocessing: How pictures become inputs. Needed for pictures; ready arrays ignore it.
        labels: `name index` per line, for pictures on disk. Arrays carry theirs as `y`.
        jobs: Threads that decode ahead; 0: one per core.

    Returns:
        The data; nothing is decoded yet.

    Raises:
        ModelFormatError: If a file is missing or damaged.
        CalibrationError: If the data do not fit the network, or pictures lack preprocessing.
    """
    if path.is_dir():
        return _pictures(_folder(path), path, inputs, preprocessing, labels, jobs)
    if not path.is_file():
        raise ModelFormatError(
            f"there is no '{path}'", fix="give a folder of images, a .txt list, or .npy/.npz"
        )
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return _pictures(_listed(path), path, inputs, preprocessing, labels, jobs)
    if suffix in IMAGE_SUFFIXES:
        return _pictures([path], path, inputs, preprocessing, labels, jobs)
    if suffix in {".npy", ".npz"}:
        return Dataset(_arrays(path, inputs, preprocessing, labels), jobs=jobs)
    raise CalibrationError(
        f"'{path.name}' is no data that qconvert knows",
        at=str(path),
        fix="give a folder of images, a .txt list, or .npy/.npz",
    )


def _folder(path: Path) -> list[Path]:
    """The pictures of a folder, sorted by name."""
    found = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    pictures = sorted((file for file in found if file.is_file()), key=lambda file: file.name)
    if not pictures:
        raise CalibrationError(
            "the folder holds no pictures",
            at=str(path),
            why=f"no file in it ends in {', '.join(sorted(IMAGE_SUFFIXES))}",
            fix="subfolders are not searched: give the folder the pictures are in",
        )
    return pictures


def _listed(path: Path) -> list[Path]:
    """The pictures a list names, relative to the list or to the working directory."""
    lines = read_text(path, "the list", encoding="utf-8-sig").splitlines()
    pictures = []
    for number, line in enumerate(lines, 1):
        if not (name := line.strip()):
            continue
        places = (path.parent / name, Path(name))
        found = next((place for place in places if _is_file(place)), None)
        if found is None:
            raise ModelFormatError(
                f"there is no '{name[:200]}'",
                at=f"{path}:{number}",
                why="paths are relative to the list, or to the working directory",
            )
        pictures.append(found)
    if not pictures:
        raise CalibrationError("the list names no pictures", at=str(path))
    return pictures


def _is_file(path: Path) -> bool:
    """Whether there is a file; a line that can be no path at all counts as no."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _sole_input(
    inputs: Mapping[str, tuple[int, ...]], preprocessing: Preprocessing | None, path: Path
) -> tuple[str, Preprocessing]:
    """The input that pictures feed, once it is sure that they fit it."""
    if preprocessing is None:
        raise CalibrationError(
            "pictures need preprocessing",
            at=str(path),
            why="a wrong mean, norm or channel order ruins the result silently, so none is guessed",
            fix="--preprocess FILE.json, or --size --color --mean --norm --resize",
        )
    if len(inputs) != 1:
        raise CalibrationError(
            f"pictures feed one input, the network has {len(inputs)}",
            at=str(path),
            why=f"inputs: {', '.join(inputs)}",
            fix="give an .npz with one float32 array per input",
        )
    ((name, shape),) = inputs.items()
    if preprocessing.shape != tuple(shape):
        raise CalibrationError(
            f"preprocessing makes {list(preprocessing.shape)}, input '{name}' is {list(shape)}",
            at=str(path),
            why="size is [width, height], and color gives 1 or 3 channels",
            fix="correct the preprocessing, or set --input-shape",
        )
    return name, preprocessing


def _pictures(
    pictures: Sequence[Path],
    path: Path,
    inputs: Mapping[str, tuple[int, ...]],
    preprocessing: Preprocessing | None,
    labels: Path | None,
    jobs: int,
) -> Dataset:
    """Pictures on disk, with their labels."""
    name, how = _sole_input(inputs, preprocessing, path)
    known = None
    if labels is not None:
        table = label_files.read(labels)
        known = [label_files.label_of(table, picture, labels) for picture in pictures]
    return Dataset(PictureFiles(pictures, known, name, how), jobs=jobs)


def _arrays(
    path: Path,
    inputs: Mapping[str, tuple[int, ...]],
    preprocessing: Preprocessing | None,
    labels: Path | None,
) -> Source:
    """Ready inputs or pictures in arrays."""
    if labels is not None:
        raise CalibrationError(
            "a label file goes with pictures on disk",
            at=str(labels),
            fix=f"put the labels into '{path.name}' as array 'y'",
        )
    names = array_names(path)
    answers = None
    if "y" in names and "y" not in inputs:
        names.remove("y")
        answers = open_array(path, "y")
    chosen = {name: open_array(path, key) for name, key in _chosen(names, inputs, path).items()}
    if not all(len(array) for array in chosen.values()):
        raise CalibrationError("the array is empty", at=str(path))
    rows = {len(array) for array in (*chosen.values(), *([answers] if answers else []))}
    if len(rows) != 1:
        raise CalibrationError(
            "the arrays differ in length", at=str(path), why=f"lengths {sorted(rows)}"
        )
    known = None if answers is None else _answers(answers, path)
    first = next(iter(chosen.values()))
    if first.dtype == np.uint8:
        _must_be_pictures(first, path)
        name, how = _sole_input(inputs, preprocessing, path)
        return PictureArray(first, known, name, how)
    for name, array in chosen.items():
        _must_fit(name, array, inputs[name], path)
    return ReadyArrays(chosen, dict(inputs), known)


def _chosen(
    arrays: Sequence[str], inputs: Mapping[str, tuple[int, ...]], path: Path
) -> dict[str, str]:
    """Network input → name of its array: the same, or the one array there is."""
    if all(name in arrays for name in inputs):
        return {name: name for name in inputs}
    if len(inputs) == 1:
        (name,) = inputs
        if "x" in arrays:
            return {name: "x"}
        if len(arrays) == 1:
            return {name: arrays[0]}
    missing = [name for name in inputs if name not in arrays]
    raise CalibrationError(
        f"the data lack input {', '.join(repr(name) for name in missing)}",
        at=str(path),
        why=f"arrays: {', '.join(arrays) or 'none'}",
        fix="name the arrays like the network's inputs",
    )


def _answers(array: ArrayFile, path: Path) -> list[int]:
    """Class indices of array `y`."""
    if array.dtype.kind not in "iu" or len(array.shape) != 1:
        raise CalibrationError(
            f"labels 'y' are {array.dtype} {list(array.shape)}",
            at=str(path),
            why="they are class indices, one integer per sample",
        )
    return [int(array.row(index).item()) for index in range(len(array))]


def _must_be_pictures(array: ArrayFile, path: Path) -> None:
    """Refuse a uint8 array that is no stack of pictures."""
    shape = array.shape
    if not (len(shape) == 3 or (len(shape) == 4 and shape[3] in {1, 3, 4})) or 0 in shape:
        raise CalibrationError(
            f"a uint8 array of shape {list(shape)} is no stack of pictures",
            at=str(path),
            why="pictures are [N, H, W] or [N, H, W, C] with C of 1, 3 or 4",
            fix="ready inputs are float32 [N, C, H, W]",
        )


def _must_fit(name: str, array: ArrayFile, shape: tuple[int, ...], path: Path) -> None:
    """Refuse an array that the network input cannot take."""
    if array.dtype.kind != "f":
        raise CalibrationError(
            f"input '{name}' is {array.dtype}",
            at=str(path),
            why="ready inputs are float32; uint8 arrays are pictures",
        )
    if array.shape[1:] != tuple(shape[1:]):
        raise CalibrationError(
            f"the data for '{name}' are {list(array.shape)}, the network takes {list(shape)}",
            at=str(path),
            why="the first axis counts samples, the others must agree",
        )

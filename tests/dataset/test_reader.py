"""Folders, lists and arrays as data: order, errors, and no more than a row at a time."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from qconvert.dataset.preprocessing import Preprocessing
from qconvert.dataset.reader import Dataset, Sample, open_dataset
from qconvert.errors import CalibrationError, ModelFormatError, QconvertError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPES = {"data": (1, 3, 4, 6)}
HOW = Preprocessing((6, 4), "rgb", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture
def pictures(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "c.bmp", "deeper/z.png"):
        pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "labels.txt").write_text("a.JPG 3\nb.png, 1\n\nc.bmp\t2\n")
    return folder


def names(data: Dataset) -> list[str]:
    return [sample.name for sample in data]


def test_a_folder_gives_its_pictures_sorted_and_nothing_else(pictures: Path) -> None:
    data = open_dataset(pictures, SHAPES, preprocessing=HOW)

    assert names(data) == ["a.JPG", "b.png", "c.bmp"]
    assert len(data) == 3


def test_a_list_is_relative_to_itself_or_the_working_directory(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = pictures / "list.txt"
    listing.write_text(f"c.bmp\n\ndeeper/z.png\n{pictures / 'b.png'}\npictures/a.JPG\n")
    monkeypatch.chdir(pictures.parent)

    data = open_dataset(listing, SHAPES, preprocessing=HOW)

    assert names(data) == ["c.bmp", "z.png", "b.png", "a.JPG"]


def test_one_picture_is_data_too(pictures: Path) -> None:
    assert names(open_dataset(pictures / "b.png", SHAPES, preprocessing=HOW)) == ["b.png"]


def test_labels_come_with_the_pictures(pictures: Path) -> None:
    data = open_dataset(pictures, SHAPES, preprocessing=HOW, labels=pictures / "labels.txt")

    assert [sample.label for sample in data] == [3, 1, 2]


@pytest.mark.parametrize("jobs", [1, 3])
def test_order_and_values_do_not_depend_on_threads(pictures: Path, jobs: int) -> None:
    alone = open_dataset(pictures, SHAPES, preprocessing=HOW, jobs=1)
    data = open_dataset(pictures, SHAPES, preprocessing=HOW, jobs=jobs)

    for first, second in zip(alone, data, strict=True):
        assert first.name == second.name
        np.testing.assert_array_equal(first.inputs["data"], second.inputs["data"])


def test_data_can_be_walked_again_and_left_in_the_middle(pictures: Path) -> None:
    data = open_dataset(pictures, SHAPES, preprocessing=HOW)

    assert next(iter(data)).name == "a.JPG"
    assert names(data) == names(data)


def test_subsets_keep_the_order_asked_for(pictures: Path) -> None:
    data = open_dataset(pictures, SHAPES, preprocessing=HOW)

    assert names(data.subset([2, 0])) == ["c.bmp", "a.JPG"]
    assert names(data.subset([2, 0]).subset([1])) == ["a.JPG"]


def test_decoding_runs_only_a_little_ahead() -> None:
    asked: list[int] = []

    class Counting:
        def __len__(self) -> int:
            return 1000

        def fetch(self, index: int) -> int:
            asked.append(index)
            return index

        def prepare(self, index: int, raw: int) -> Sample:
            return Sample(f"{index} {raw}", {})

        def close(self) -> None: ...

    walk = iter(Dataset(Counting(), jobs=2))
    next(walk)

    assert len(asked) <= 5


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_ready_arrays_come_as_they_are(
    save: Callable[..., None], tmp_path: Path, rng: np.random.Generator
) -> None:
    arrays = rng.normal(size=(5, 3, 4, 6)).astype(np.float32)
    save(tmp_path / "x.npz", data=arrays, y=np.arange(5))

    data = open_dataset(tmp_path / "x.npz", SHAPES, preprocessing=None)

    found = list(data)
    np.testing.assert_array_equal(np.concatenate([s.inputs["data"] for s in found]), arrays)
    assert [sample.label for sample in found] == [0, 1, 2, 3, 4]
    assert [sample.name for sample in data.subset([3, 1])] == ["data[3]", "data[1]"]


def test_npy_feeds_the_one_input(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = rng.normal(size=(2, 3, 4, 6))
    np.save(tmp_path / "x.npy", arrays)

    found = list(open_dataset(tmp_path / "x.npy", SHAPES, preprocessing=None))

    np.testing.assert_array_equal(found[1].inputs["data"][0], arrays[1].astype(np.float32))


def test_several_inputs_are_found_by_name(tmp_path: Path) -> None:
    shapes = {"left": (1, 2), "y": (1, 3)}
    np.savez(tmp_path / "x.npz", left=np.ones((4, 2), "f4"), y=np.zeros((4, 3), "f4"), other=1)

    found = list(open_dataset(tmp_path / "x.npz", shapes, preprocessing=None))

    assert len(found) == 4
    assert found[0].inputs["y"].shape == (1, 3)


@pytest.mark.parametrize("shape", [(4, 5, 7), (4, 5, 7, 1), (4, 5, 7, 3), (4, 5, 7, 4)])
def test_uint8_arrays_are_pictures(
    shape: tuple[int, ...], tmp_path: Path, rng: np.random.Generator
) -> None:
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x=pixels, y=np.arange(4))

    found = list(open_dataset(tmp_path / "x.npz", SHAPES, preprocessing=HOW))

    np.testing.assert_array_equal(found[2].inputs["data"], HOW.apply(pixels[2]))
    assert found[2].label == 2


@dataclass(frozen=True)
class Bad:
    id: str
    make: Callable[[Path], Path]
    error: type[QconvertError]
    words: str
    labels: str | None = None
    preprocessing: Preprocessing | None = HOW
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = (("data", (1, 3, 4, 6)),)


def _npz(**arrays: np.ndarray) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.savez(folder / "x.npz", allow_pickle=False, **arrays)
        return folder / "x.npz"

    return make


def _file(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    (folder / "empty" / "readme.md").write_text("no pictures")
    return folder / "empty"


def _picture(folder: Path) -> Path:
    (folder / "p").mkdir()
    Image.new("RGB", (7, 5)).save(folder / "p" / "good.png")
    return folder / "p"


def _one_broken(folder: Path) -> Path:
    made = _picture(folder)
    whole = (made / "good.png").read_bytes()
    (made / "torn.png").write_bytes(whole[: len(whole) // 2])
    return made


def _not_a_picture(folder: Path) -> Path:
    made = _picture(folder)
    (made / "text.jpg").write_text("this is text")
    return made


def _hostile_npy(folder: Path) -> Path:
    head = b"\x93NUMPY\x01\x00"
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 3, 4, 6), }\n"
    (folder / "x.npy").write_bytes(head + len(text).to_bytes(2, "little") + text)
    return folder / "x.npy"


def _pickled(folder: Path) -> Path:
    np.save(folder / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return folder / "x.npy"


def _torn_member(folder: Path) -> Path:
    member = io.BytesIO()
    np.save(member, np.ones((5, 3, 4, 6), np.float32))
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        archive.writestr("data.npy", member.getvalue()[:-8])
    return folder / "x.npz"


READY = np.ones((2, 3, 4, 6), np.float32)
BAD = [
    Bad("missing", lambda folder: folder / "none", ModelFormatError, "there is no"),
    Bad("empty_folder", _empty, CalibrationError, "holds no pictures"),
    Bad("torn_picture", _one_broken, CalibrationError, "torn.png"),
    Bad("text_as_picture", _not_a_picture, CalibrationError, "text.jpg"),
    Bad("no_preprocessing", _picture, CalibrationError, "preprocessing", preprocessing=None),
    Bad("two_inputs", _picture, CalibrationError, "network has 2",
        shapes=(("a", (1, 3, 4, 6)), ("b", (1, 3, 4, 6)))),
    Bad("wrong_channels", _picture, CalibrationError, "[1, 1, 4, 6]",
        shapes=(("data", (1, 1, 4, 6)),)),
    Bad("unknown_kind", _file("x.mp4", b"?"), CalibrationError, "x.mp4"),
    Bad("list_of_nothing", _file("x.txt", b"\n\n"), CalibrationError, "names no pictures"),
    Bad("list_binary", _file("x.txt", b"\xff\xfe\x00"), ModelFormatError, "list"),
    Bad("list_missing_file", _file("x.txt", b"\nno.png\n"), ModelFormatError, "x.txt:2"),
    Bad("list_of_garbage", _file("x.txt", b"a\x00b\n" + b"c" * 9999), ModelFormatError, "x.txt:1"),
    Bad("npz_garbage", _file("x.npz", b"PK nonsense"), ModelFormatError, "x.npz"),
    Bad("npy_garbage", _file("x.npy", b"\x93NUMPY"), ModelFormatError, "x.npy"),
    Bad("npy_hostile_size", _hostile_npy, ModelFormatError, "bytes"),
    Bad("npy_pickled", _pickled, ModelFormatError, "object"),
    Bad("npz_torn", _torn_member, ModelFormatError, "data"),
    Bad("npz_empty", _npz(), CalibrationError, "lack input 'data'"),
    Bad("npz_other_names", _npz(a=READY, b=READY), CalibrationError, "lack input 'data'"),
    Bad("npz_no_rows", _npz(data=READY[:0]), CalibrationError, "empty"),
    Bad("npz_wrong_shape", _npz(data=READY[:, :1]), CalibrationError, "[2, 1, 4, 6]"),
    Bad("npz_no_batch_axis", _npz(data=READY[0]), CalibrationError, "[3, 4, 6]"),
    Bad("npz_integers", _npz(data=READY.astype(int)), CalibrationError, "int64"),
    Bad("npz_nan", _npz(data=READY * np.nan), CalibrationError, "data[0]"),
    Bad("npz_huge_doubles", _npz(data=READY.astype("f8") * 1e300), CalibrationError, "data[0]"),
    Bad("npz_uneven_labels", _npz(data=READY, y=np.arange(3)), CalibrationError, "length"),
    Bad("npz_float_labels", _npz(data=READY, y=np.ones(2)), CalibrationError, "labels"),
    Bad("npz_label_file", _npz(data=READY), CalibrationError, "label file", labels="a 1"),
    Bad("npz_fortran", _npz(data=np.asfortranarray(READY)), ModelFormatError, "Fortran"),
    Bad("uint8_without_preprocessing", _npz(x=READY.astype("u1")[..., :3]), CalibrationError,
        "preprocessing", preprocessing=None),
    Bad("uint8_channels_first", _npz(x=READY.astype("u1")), CalibrationError, "stack of pictures"),
    Bad(
        "uint8_smaller_than_the_cut",
        _npz(x=np.zeros((2, 3, 5, 3), np.uint8)),
        CalibrationError,
        "x[0]",
        preprocessing=replace(HOW, resize="center-crop", resize_short=0),
    ),
    Bad("label_missing", _picture, CalibrationError, "good.png", labels="other.png 1"),
    Bad("label_word", _picture, ModelFormatError, "labels.txt:1", labels="good.png cat"),
    Bad("label_lonely", _picture, ModelFormatError, "labels.txt:1", labels="good.png"),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_data_that_do_not_fit_are_refused_by_name(case: Bad, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    labels = None
    if case.labels is not None:
        labels = tmp_path / "labels.txt"
        labels.write_text(case.labels)

    with pytest.raises(case.error) as error:
        list(open_dataset(path, dict(case.shapes), preprocessing=case.preprocessing, labels=labels))

    assert case.words in str(error.value)


def test_a_damaged_compressed_row_is_an_error_not_a_crash(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", data=np.random.default_rng(0).random((9, 3, 4, 6)))
    raw = bytearray((tmp_path / "x.npz").read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(raw)

    with pytest.raises(ModelFormatError):
        list(open_dataset(tmp_path / "x.npz", SHAPES, preprocessing=None))

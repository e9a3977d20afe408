"""Whatever bytes a data file holds: it is read, or refused with an error of ours."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from qconvert.dataset.preprocessing import Preprocessing
from qconvert.dataset.reader import open_dataset
from qconvert.errors import QconvertError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOW = Preprocessing((6, 4), "rgb", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
READY = np.linspace(-1, 1, 3 * 3 * 4 * 6, dtype=np.float32).reshape(3, 3, 4, 6)
PIXELS = (np.arange(20 * 30 * 3) % 251).astype(np.uint8).reshape(20, 30, 3)


def _saved(save: Callable[[io.BytesIO], None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


@dataclass(frozen=True)
class File:
    id: str
    content: bytes


def _picture(kind: str) -> bytes:
    return _saved(lambda file: Image.fromarray(PIXELS).save(file, kind))


FILES = [
    File("x.npy", _saved(lambda file: np.save(file, READY))),
    File("x.npz", _saved(lambda file: np.savez(file, data=READY, y=np.arange(3)))),
    File("z.npz", _saved(lambda file: np.savez_compressed(file, x=PIXELS[None]))),
    *(
        File(f"p.{kind}", _picture(kind))
        for kind in ("png", "jpeg", "bmp", "gif", "webp", "tiff", "ppm")
    ),
    File("list.txt", b"a.png\nb.png\n"),
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.id)
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_bytes_are_read_or_refused(file: File, data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(file.content)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    path = tmp_path / file.id
    path.write_bytes(bytes(content[:cut]))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damage it can live with
        try:
            samples = list(open_dataset(path, {"data": (1, 3, 4, 6)}, preprocessing=HOW, jobs=1))
        except QconvertError as error:
            assert str(error)  # noqa: PT017 - either way out is right, but not silently
            return
    assert all(np.isfinite(sample.inputs["data"]).all() for sample in samples)


def test_a_header_that_is_no_python_text_is_refused(tmp_path: Path) -> None:
    content = bytearray(FILES[0].content)
    content[10] = 0
    (tmp_path / "x.npy").write_bytes(content)

    with pytest.raises(QconvertError, match="array file cannot be read"):
        open_dataset(tmp_path / "x.npy", {"data": (1, 3, 4, 6)}, preprocessing=None)

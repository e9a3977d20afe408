"""The examples in a bundle do what the bundle does."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from qconvert.backends.ncnn import backend
from qconvert.backends.ncnn.examples import Ends, write_examples
from qconvert.dataset.preprocessing import Preprocessing
from qconvert.report import Report
from qconvert.target import WriteJob
from tests.backends.graphs import model_of
from tests.backends.ncnn.support import deploy, run_files

if TYPE_CHECKING:
    from qconvert.dataset.preprocessing import Color, Resize

# What the examples use of ncnn, declared as its documentation describes it.
STUB = """
#pragma once
#include <cstddef>
#include <cstdio>
namespace ncnn {
struct Mat {
    enum PixelType { PIXEL_RGB = 1, PIXEL_GRAY = 3, PIXEL_RGB2BGR = 131073 };
    int w, h, d, c;
    Mat();
    Mat(int w, size_t elemsize = 4u);
    Mat(int w, int h, size_t elemsize = 4u);
    Mat(int w, int h, int c, size_t elemsize = 4u);
    Mat(int w, int h, int d, int c, size_t elemsize = 4u);
    static Mat from_pixels_resize(const unsigned char*, int, int, int, int, int);
    void substract_mean_normalize(const float*, const float*);
    Mat channel(int);
    const Mat channel(int) const;
    float* row(int);
    operator float*();
    operator const float*() const;
};
enum { BORDER_CONSTANT = 0 };
struct Option { bool lightmode, use_fp16_packed, use_fp16_storage, use_fp16_arithmetic; };
void copy_make_border(const Mat&, Mat&, int, int, int, int, int, float,
                      const Option& = Option());
void copy_cut_border(const Mat&, Mat&, int, int, int, int, const Option& = Option());
struct Extractor { int input(const char*, const Mat&); int extract(const char*, Mat&); };
struct Net {
    Option opt;
    int load_param(const char*);
    int load_model(const char*);
    Extractor create_extractor() const;
};
}
"""


@dataclass(frozen=True)
class Case:
    id: str
    size: tuple[int, int]
    color: Color
    resize: Resize
    short: int | None = None
    transpose: bool = False

    @property
    def preprocessing(self) -> Preprocessing:
        channels = 1 if self.color == "gray" else 3
        return Preprocessing(
            self.size, self.color, (104.0, 117.0, 123.0)[:channels], (0.5, 0.25, 1.0)[:channels],
            self.resize, self.short, 114, self.transpose,
        )  # fmt: skip


CASES = [
    Case("squash_bgr", (40, 24), "bgr", "squash"),
    Case("squash_gray", (24, 40), "gray", "squash"),
    Case("squash_larger", (120, 130), "rgb", "squash"),
    Case("letterbox_rgb", (64, 40), "rgb", "letterbox"),
    Case("letterbox_gray", (40, 64), "gray", "letterbox"),
    Case("center_crop_bgr", (32, 32), "bgr", "center-crop"),
    Case("center_crop_short", (32, 20), "rgb", "center-crop", 50),
    Case("center_crop_unscaled", (32, 20), "rgb", "center-crop", 0),
    Case("transposed", (40, 24), "rgb", "squash", transpose=True),
    Case("transposed_letterbox", (40, 24), "bgr", "letterbox", transpose=True),
]


@pytest.fixture
def photo(rng: np.random.Generator, tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(rng.integers(0, 256, (81, 97, 3), dtype=np.uint8)).save(path)
    return path


def example(case: Case, folder: Path) -> dict[str, Any]:
    """What a case's example.py defines."""
    shape = case.preprocessing.shape[1:]
    write_examples(folder, Ends({"data": shape}, {"prob": (1, 10)}), case.preprocessing)
    return runpy.run_path(str(folder / "example.py"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_picture_is_prepared_as_in_calibration(case: Case, photo: Path, tmp_path: Path) -> None:
    prepared = example(case, tmp_path)["preprocess"](photo)

    with Image.open(photo) as picture:
        expected = case.preprocessing.apply(picture)[0]
    assert prepared.shape == expected.shape
    levels = (prepared - expected) / np.reshape(case.preprocessing.norm, (-1, 1, 1))
    assert np.abs(levels).max() <= 1.001  # ncnn's resizing may round another way
    assert (np.abs(levels) > 1e-3).mean() < 0.02


def test_the_python_example_gives_what_the_bundle_gives(
    rng: np.random.Generator, photo: Path, tmp_path: Path
) -> None:
    model = model_of(
        """g (float[1, 3, 16, 16] data) => (float[] prob, float[] feature) {
          feature = Conv(data, w)
          r = Relu(feature)
          g = GlobalAveragePool(r)
          prob = Flatten(g)
        }""",
        w=rng.normal(size=(5, 3, 3, 3)).astype(np.float32),
    )
    preprocessing = Case("", (16, 16), "rgb", "letterbox").preprocessing
    with Image.open(photo) as picture:
        feed = {"data": preprocessing.apply(picture)}
    job = WriteJob(model, model, tmp_path, Report(), preprocessing=preprocessing)
    outputs = run_files(tmp_path, model, backend.write(job), feed)

    made = runpy.run_path(str(tmp_path / "example.py"))
    results = made["run"](made["load"](), {"data": feed["data"][0]})
    command = [sys.executable, str(tmp_path / "example.py"), str(photo)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout

    assert results.keys() == outputs.keys()
    for name, expected in outputs.items():
        np.testing.assert_array_equal(results[name], expected)
    assert "prob [1, 5]" in printed
    assert "feature [1, 5, 14, 14]" in printed


def test_a_network_without_preprocessing_reads_arrays(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    model = model_of("g (float[1, 4] a, float[1, 3, 4] b) => (float[] y) { y = Add(a, b) }")
    feed = {
        "a": rng.normal(size=(1, 4)).astype(np.float32),
        "b": rng.normal(size=(1, 3, 4)).astype(np.float32),
    }
    artifact = deploy(model, feed, folder=tmp_path)
    for name, array in feed.items():
        np.save(tmp_path / f"{name}.npy", array)

    made = runpy.run_path(str(tmp_path / "example.py"))
    results = made["run"](made["load"](), {name: array[0] for name, array in feed.items()})
    command = [sys.executable, "example.py", "a.npy", "b.npy"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)

    np.testing.assert_array_equal(results["y"], artifact.outputs["y"])
    assert printed.stdout.startswith("y [1, 3, 4]")


def headers(folder: Path) -> Path:
    """Where ncnn's headers are: installed ones, or declarations of what the examples use."""
    for place in (
        os.environ.get("NCNN_INCLUDE", ""),
        "/usr/include/ncnn",
        "/usr/local/include/ncnn",
    ):
        if place and (Path(place) / "net.h").exists():
            return Path(place)
    (folder / "net.h").write_text(STUB)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, None], ids=lambda case: case.id if case else "arrays")
def test_the_cpp_example_compiles(case: Case | None, tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    if case is not None:
        example(case, tmp_path)
    else:
        inputs = {'a "quoted"\\name': (3, 4, 5), "b": (7,), "c": (2, 3, 4, 5)}
        write_examples(tmp_path, Ends(inputs, {"y": (1, 4), "z": (-1, 6)}), None)

    flags = ["-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    command = [compiler, *flags, "-I", str(headers(tmp_path)), str(tmp_path / "example.cpp")]
    result = subprocess.run(command, check=False, capture_output=True, text=True)

    assert result.returncode == 0, result.stderr

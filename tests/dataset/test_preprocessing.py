"""Preprocessing against OpenCV and the corpus' reference inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from qconvert.dataset.preprocessing import Preprocessing, read_keys
from qconvert.dataset.resize import bilinear
from qconvert.errors import CalibrationError, ModelFormatError

if TYPE_CHECKING:
    from pathlib import Path

PLAIN: dict[str, Any] = {"size": [6, 4], "color": "rgb", "mean": [0, 0, 0], "norm": [1, 1, 1]}


def photo(rng: np.random.Generator, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(
    seed=st.integers(0, 2**32 - 1),
    source=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_resizing_equals_opencv_bit_for_bit(
    seed: int, source: tuple[int, int], target: tuple[int, int]
) -> None:
    pixels = photo(np.random.default_rng(seed), *source)

    ours = bilinear(pixels, target[1], target[0])

    theirs = cv2.resize(pixels, (target[1], target[0]), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(ours, theirs)


@dataclass(frozen=True)
class Reference:
    id: str
    model: str
    image: str
    case: int = 0


REFERENCES = [
    Reference("center_crop", "caffe_squeezenet_v1.1", "imagenet200/n01944390_snail.jpg"),
    Reference("squash_rotated_photo", "caffe_retinaface_widerface", "detect/image_T1.jpg"),
    Reference("gray", "caffe_wechat_sr", "detect/qr.png"),
    Reference("rgb_squash", "darknet_yolo_fastest_1.1", "detect/dog.jpg"),
    Reference("transposed", "caffe_mtcnn_pnet", "detect/yolofacetest1.jpg", case=1),
    Reference("bgr_uneven_norm", "ncnn_nanodet_m", "detect/dog.jpg"),
    Reference("half_size", "onnx_ultraface_rfb320", "detect/image_T1.jpg"),
]


@pytest.mark.parametrize("case", REFERENCES, ids=lambda case: case.id)
def test_pictures_become_the_reference_inputs(case: Reference, corpus: Path) -> None:
    folder = corpus / "models" / case.model
    preprocessing = Preprocessing.from_mapping(read_keys(folder / "preprocessing.json"), "")

    with Image.open(corpus / "images" / case.image) as image:
        made = preprocessing.apply(image)

    with np.load(folder / "reference.npz") as reference:
        np.testing.assert_array_equal(made, reference[f"input_{case.case}"])


def test_every_corpus_file_is_understood(corpus: Path) -> None:
    for path in (corpus / "models").glob("*/preprocessing.json"):
        assert Preprocessing.from_mapping(read_keys(path), "").channels in {1, 3}


def test_value_is_pixel_minus_mean_times_norm(rng: np.random.Generator) -> None:
    pixels = photo(rng, 4, 6)
    keys = PLAIN | {"color": "BGR", "mean": [104, 117, 123], "norm": [1, 0.5, 0.25]}

    made = Preprocessing.from_mapping(keys, "").apply(pixels)

    wanted = (pixels[:, :, ::-1].astype(np.float32) - [104, 117, 123]) * [1, 0.5, 0.25]
    np.testing.assert_allclose(made[0], wanted.transpose(2, 0, 1), rtol=1e-6)
    assert made.dtype == np.float32
    assert made.flags["C_CONTIGUOUS"]


def test_center_crop_cuts_the_middle_without_scaling(rng: np.random.Generator) -> None:
    pixels = photo(rng, 9, 10)
    keys = PLAIN | {"resize": "center-crop", "resize_short": 0}

    made = Preprocessing.from_mapping(keys, "").apply(pixels)

    np.testing.assert_array_equal(made[0], pixels[2:6, 2:8].transpose(2, 0, 1))


def test_center_crop_scales_the_shorter_side_by_default() -> None:
    # 256/224 of 224 is 256: the cut begins 16 pixels from every edge of a 256x256 picture.
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[16, 16] = 255
    keys = PLAIN | {"size": [224, 224], "resize": "center-crop"}

    made = Preprocessing.from_mapping(keys, "").apply(pixels)

    assert made[0, 0, 0, 0] == 255


def test_letterbox_keeps_the_aspect_on_a_plain_border() -> None:
    pixels = np.full((10, 20, 3), 7, np.uint8)
    keys = PLAIN | {"size": [8, 8], "resize": "letterbox", "fill": 99}

    made = Preprocessing.from_mapping(keys, "").apply(pixels)[0, 0]

    assert (made[2:6] == 7).all()
    assert (made[:2] == 99).all()
    assert (made[6:] == 99).all()


def test_transpose_swaps_x_and_y_at_the_end(rng: np.random.Generator) -> None:
    pixels = photo(rng, 6, 4)

    made = Preprocessing.from_mapping(PLAIN | {"transpose": True}, "").apply(pixels)

    np.testing.assert_array_equal(made[0], pixels.transpose(2, 1, 0))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "LA", "I;16"])
def test_pictures_of_every_kind_give_the_networks_channels(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 6), 0x8000, np.uint16))
    else:
        image = Image.new(mode, (6, 4), 1)

    assert Preprocessing.from_mapping(PLAIN, "").apply(image).shape == (1, 3, 4, 6)
    gray = PLAIN | {"color": "Gray", "mean": 0, "norm": 1}
    assert Preprocessing.from_mapping(gray, "").apply(image).shape == (1, 1, 4, 6)


def test_a_camera_orientation_mark_is_obeyed(tmp_path: Path, rng: np.random.Generator) -> None:
    image = Image.fromarray(photo(rng, 6, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)

    with Image.open(tmp_path / "turned.png") as turned:
        made = Preprocessing.from_mapping(PLAIN, "").apply(turned)
        upright = np.asarray(ImageOps.exif_transpose(turned))

    np.testing.assert_array_equal(made[0], upright.transpose(2, 0, 1))


@dataclass(frozen=True)
class Wrong:
    id: str
    change: dict[str, Any]
    word: str


WRONG = [
    Wrong("unknown_key", {"std": [1, 1, 1]}, "std"),
    Wrong("missing", {"mean": None, "-": "mean"}, "mean is missing"),
    Wrong("color", {"color": "yuv"}, "yuv"),
    Wrong("resize", {"resize": "stretch"}, "stretch"),
    Wrong("three_means_for_gray", {"color": "gray"}, "1 channel"),
    Wrong("size_zero", {"size": [0, 4]}, "size"),
    Wrong("size_huge", {"size": [1 << 40, 4]}, "size"),
    Wrong("size_infinite", {"size": [float("inf"), 4]}, "size"),
    Wrong("size_text", {"size": "224x224"}, "size"),
    Wrong("mean_text", {"mean": ["a", 0, 0]}, "mean"),
    Wrong("norm_nan", {"norm": [float("nan"), 1, 1]}, "finite"),
    Wrong("fill", {"fill": 256}, "fill"),
    Wrong("transpose_word", {"transpose": "no"}, "transpose"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.id)
def test_a_wrong_description_is_refused_with_its_place(case: Wrong) -> None:
    keys = PLAIN | case.change
    if "-" in keys:
        keys = {key: value for key, value in keys.items() if key not in {"-", keys["-"]}}

    with pytest.raises(CalibrationError) as error:
        Preprocessing.from_mapping(keys, "pre.json")

    assert case.word in error.value.why
    assert error.value.at == "pre.json"


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000])
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "pre.json"
    path.write_text(text, encoding="latin-1")

    with pytest.raises(ModelFormatError) as error:
        read_keys(path)

    assert error.value.at == str(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="cannot be read"):
        read_keys(tmp_path / "none.json")


def test_documentary_keys_have_no_effect() -> None:
    keys = PLAIN | {"input": "data", "gray": True, "crop_box": [1, 2, 3, 4], "oracle": "x"}

    assert Preprocessing.from_mapping(keys, "") == Preprocessing.from_mapping(PLAIN, "")


def test_a_picture_smaller_than_the_cut_is_refused(rng: np.random.Generator) -> None:
    keys = PLAIN | {"resize": "center-crop", "resize_short": 0}

    with pytest.raises(CalibrationError, match="5x3, smaller than the cut of 6x4"):
        Preprocessing.from_mapping(keys, "").apply(photo(rng, 3, 5))

"""What happens to a picture before the network sees it: one explicit, repeatable description.

value = (pixel - mean) * norm, channels in the order of `color`, axes [1, C, H, W].

A wrong mean or channel order is the most common silent failure of a quantized model, so nothing
here is guessed: size, colour, mean and norm have no defaults, and an unknown key is an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, get_args

import numpy as np
from PIL import Image, ImageOps

from qconvert.content import read_json
from qconvert.dataset.resize import bilinear
from qconvert.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from qconvert.quant import F32

    U8 = npt.NDArray[np.uint8]

__all__ = ["Color", "Preprocessing", "Resize", "read_keys"]

Color: TypeAlias = Literal["rgb", "bgr", "gray"]
Resize: TypeAlias = Literal["center-crop", "squash", "letterbox"]

_LARGEST_SIDE: Final = 16384
_DOCUMENTARY: Final = frozenset(
    ("input", "outputs", "layout", "value", "oracle", "reference_images", "gray", "crop_box")
)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes a network input.

    Attributes:
        size: Width and height of the network input.
        color: Channel order of the network input.
        mean: Subtracted from each channel, in the order of `color`.
        norm: Factor for each channel, after the subtraction.
        resize: `center-crop` scales the shorter side, then cuts the middle out; `squash`
            stretches; `letterbox` keeps the aspect on a plain border.
        resize_short: For `center-crop`: length of the shorter side before the cut. None: 256/224
            of the longer side of the cut; 0: no scaling.
        fill: Grey level of the letterbox border, 0 to 255.
        transpose: Whether x and y are swapped at the end (networks trained in MATLAB). `size` is
            what the network sees, after the swap.

    Raises:
        CalibrationError: If a value is out of its range.
    """

    size: tuple[int, int]
    color: Color
    mean: tuple[float, ...]
    norm: tuple[float, ...]
    resize: Resize = "squash"
    resize_short: int | None = None
    fill: int = 114
    transpose: bool = False

    def __post_init__(self) -> None:
        channels = 1 if self.color == "gray" else 3
        checks = (
            (
                all(1 <= side <= _LARGEST_SIDE for side in self.size),
                f"size is {list(self.size)}, not two numbers from 1 to {_LARGEST_SIDE}",
            ),
            (self.color in get_args(Color), f"color is {self.color!r}, not rgb, bgr or gray"),
            (
                self.resize in get_args(Resize),
                f"resize is {self.resize!r}, not center-crop, squash or letterbox",
            ),
            (
                len(self.mean) == channels and len(self.norm) == channels,
                f"{len(self.mean)} means and {len(self.norm)} norms for {channels} channel(s)",
            ),
            (
                all(math.isfinite(number) for number in (*self.mean, *self.norm)),
                "mean and norm are not all finite",
            ),
            (
                self.resize_short is None or 0 <= self.resize_short <= _LARGEST_SIDE,
                f"resize_short is {self.resize_short}, not 0 to {_LARGEST_SIDE}",
            ),
            (0 <= self.fill <= 255, f"fill is {self.fill}, not 0 to 255"),
        )
        for holds, complaint in checks:
            if not holds:
                raise _wrong(complaint)

    @property
    def channels(self) -> int:
        """Channels of the network input."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the network input, [1, C, H, W]."""
        width, height = self.size
        return 1, self.channels, height, width

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], where: str) -> Preprocessing:
        """Make one of the keys of a JSON object or a TOML table.

        Args:
            mapping: The attributes by name. Documentary keys are accepted without effect.
            where: The place that errors name.

        Raises:
            CalibrationError: If a key is unknown or missing, or a value is out of its range.
        """
        unknown = sorted(set(mapping) - set(_READERS) - _DOCUMENTARY)
        if unknown:
            raise _wrong(
                f"unknown key{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}",
                where,
            )
        missing = [key for key in ("size", "color", "mean", "norm") if key not in mapping]
        if missing:
            raise _wrong(
                f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing", where
            )
        values = {}
        for key, read in _READERS.items():
            if key in mapping:
                try:
                    values[key] = read(mapping[key])
                except (TypeError, ValueError, OverflowError):
                    raise _wrong(f"{key} is {mapping[key]!r}", where) from None
        try:
            return cls(**values)
        except CalibrationError as error:
            raise _wrong(error.why, where) from None

    def apply(self, image: Image.Image | U8) -> F32:
        """The network input for one picture.

        Args:
            image: A picture, or its pixels [H, W, 3] (RGB), [H, W, 4] (alpha is dropped),
                [H, W, 1] or [H, W], uint8. A camera's orientation mark is obeyed.

        Returns:
            [1, C, H, W], float32, C-contiguous.

        Raises:
            CalibrationError: If the picture has no 8-bit form, or is smaller than the cut.
        """
        picture = image if isinstance(image, Image.Image) else _as_image(image)
        pixels = _pixels(picture, self.color)
        # With `transpose` the picture is fitted lying, then swapped into the network's size.
        width, height = self.size[::-1] if self.transpose else self.size
        fitted = {"squash": bilinear, "letterbox": self._letterbox, "center-crop": self._cut}[
            self.resize
        ](pixels, width, height)
        if self.color == "bgr":
            fitted = fitted[:, :, ::-1]
        axes = (2, 1, 0) if self.transpose else (2, 0, 1)
        planes = np.ascontiguousarray(fitted.transpose(axes)).astype(np.float32)
        planes -= np.asarray(self.mean, np.float32)[:, None, None]
        planes *= np.asarray(self.norm, np.float32)[:, None, None]
        return planes[None]

    def _cut(self, pixels: U8, width: int, height: int) -> U8:
        """Scale the shorter side, then cut the middle out."""
        rows, columns = pixels.shape[:2]
        short = self.resize_short
        if short is None:
            short = round(256 / 224 * max(width, height))
        if short:
            scale = short / min(rows, columns)
            columns, rows = round(columns * scale), round(rows * scale)
            pixels = bilinear(pixels, columns, rows)
        if rows < height or columns < width:
            raise CalibrationError(
                f"the picture is {columns}x{rows}, smaller than the cut of {width}x{height}",
                why=f"resize_short is {short}",
                fix="give a larger resize_short, or resize squash or letterbox",
            )
        top, left = (rows - height) // 2, (columns - width) // 2
        return pixels[top : top + height, left : left + width]

    def _letterbox(self, pixels: U8, width: int, height: int) -> U8:
        """Keep the aspect, on a plain border."""
        rows, columns = pixels.shape[:2]
        scale = min(width / columns, height / rows)
        inner_width = min(max(round(columns * scale), 1), width)
        inner_height = min(max(round(rows * scale), 1), height)
        canvas = np.full((height, width, pixels.shape[2]), self.fill, np.uint8)
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        canvas[top : top + inner_height, left : left + inner_width] = bilinear(
            pixels, inner_width, inner_height
        )
        return canvas


def read_keys(path: Path) -> dict[str, Any]:
    """The keys of a preprocessing file, not yet checked.

    Raises:
        ModelFormatError: If the file is missing or is not JSON.
        CalibrationError: If it holds no JSON object.
    """
    document = read_json(path, "the preprocessing file")
    if not isinstance(document, dict):
        raise _wrong("it is not a JSON object", str(path))
    return document


def _wrong(why: str, where: str = "") -> CalibrationError:
    """The one error for a description that does not make sense."""
    return CalibrationError(
        "the preprocessing is not valid",
        at=where,
        why=why,
        fix="keys: size [W, H], color rgb|bgr|gray, mean, norm, resize, resize_short, fill, "
        "transpose",
    )


def _whole(value: object) -> int:
    """A JSON number without a fraction."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise TypeError
    return int(value)


def _size(value: object) -> tuple[int, int]:
    """[W, H]."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise TypeError
    return _whole(value[0]), _whole(value[1])


def _numbers(value: object) -> tuple[float, ...]:
    """A number, or a list of them."""
    return tuple(map(_number, value if isinstance(value, (list, tuple)) else [value]))


def _number(value: object) -> float:
    """A JSON number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return float(value)


def _word(value: object) -> str:
    """A word in any case."""
    if not isinstance(value, str):
        raise TypeError
    return value.lower()


def _truth(value: object) -> bool:
    """True or false, nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise TypeError
    return value


_READERS: Final[Mapping[str, Callable[[object], Any]]] = {
    "size": _size,
    "color": _word,
    "mean": _numbers,
    "norm": _numbers,
    "resize": _word,
    "resize_short": lambda value: None if value is None else _whole(value),
    "fill": _whole,
    "transpose": _truth,
}


def _as_image(pixels: U8) -> Image.Image:
    """Pixels of a known layout as a picture."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or not (
        pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in {3, 4})
    ):
        raise CalibrationError(
            f"pixels of shape {list(pixels.shape)} and type {pixels.dtype} are no picture",
            why="a picture is uint8, [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]",
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def _pixels(picture: Image.Image, color: Color) -> U8:
    """8-bit pixels [H, W, C]: RGB, or one channel of grey."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        wide = np.asarray(picture)
        picture = Image.fromarray((wide >> 8).astype(np.uint8))
    elif picture.mode in {"I", "F"}:
        raise CalibrationError(
            f"the picture has {picture.mode}-mode pixels (32 bits)",
            why="preprocessing is defined on 8-bit pixels",
            fix="save it with 8 bits per channel, or give float arrays in an .npz",
        )
    if picture.mode in {"P", "PA"}:
        picture = picture.convert("RGBA")
    pixels = np.asarray(picture.convert("L" if color == "gray" else "RGB"))
    return cast("U8", pixels[:, :, None] if pixels.ndim == 2 else pixels)

"""Bilinear resizing of 8-bit pictures, as image pipelines on devices do it.

Pixel centres are half-integers, every output pixel mixes its four neighbours, and nothing is
smoothed before shrinking. Weights have 11 bits and the sums round as OpenCV's do, so a picture
prepared here equals one prepared with `cv2.resize(..., INTER_LINEAR)` bit for bit. Pillow's own
resampling averages over the shrunken area instead, which moves photos by several grey levels.

Reference: OpenCV modules/imgproc/src/resize.cpp (`HResizeLinear`, `VResizeLinear`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    U8 = npt.NDArray[np.uint8]
    I32 = npt.NDArray[np.int32]
    Index = npt.NDArray[np.intp]

__all__ = ["bilinear"]

_ONE: Final = 2048  # the fixed-point 1.0 of a weight


def bilinear(pixels: U8, width: int, height: int) -> U8:
    """Resize a picture.

    Args:
        pixels: [H, W, C], uint8, H and W at least 1.
        width: Columns of the result, at least 1.
        height: Rows of the result, at least 1.

    Returns:
        [height, width, C], uint8; `pixels` itself when the size does not change.
    """
    rows, columns = pixels.shape[:2]
    if (rows, columns) == (height, width):
        return pixels
    if (rows, columns) == (2 * height, 2 * width):
        return _halved(pixels)
    left, right, weight = _taps(columns, width)
    upper, lower, slope = _taps(rows, height)
    # Only the rows that are mixed get widened to int32: a large photo stays small in memory.
    needed, place = np.unique(np.concatenate([upper, lower]), return_inverse=True)
    wide = pixels[needed]
    horizontal = wide[:, left] * (_ONE - weight)[:, None] + wide[:, right] * weight[:, None]
    horizontal >>= 4
    top, bottom = horizontal[place[:height]], horizontal[place[height:]]
    top *= (_ONE - slope)[:, None, None]
    bottom *= slope[:, None, None]
    top >>= 16
    bottom >>= 16
    top += bottom
    top += 2
    top >>= 2
    return np.asarray(top, dtype=np.uint8)


def _taps(source: int, target: int) -> tuple[Index, Index, I32]:
    """For each output position: its two neighbours, and the weight of the second."""
    scale = 1.0 / (target / source)
    centre = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(centre)
    weight = np.rint((centre - first) * np.float32(_ONE)).astype(np.int32)
    index = first.astype(np.intp)
    low = np.clip(index, 0, source - 1)
    high = np.clip(index + 1, 0, source - 1)
    return low, high, weight


def _halved(pixels: U8) -> U8:
    """Exactly half the size: the mean of four, rounded up on ties."""
    wide = pixels.astype(np.uint16)
    total = wide[0::2, 0::2] + wide[0::2, 1::2] + wide[1::2, 0::2] + wide[1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)

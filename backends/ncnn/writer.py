"""Writes a `.param` and a `.bin`, and reads both back the way ncnn will."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qconvert.formats import ncnn_bin
from qconvert.formats.ncnn_bin import BinReader
from qconvert.formats.ncnn_param import parse
from qconvert.formats.ncnn_weights import read_weights

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.backends.ncnn.finish import Finished

__all__ = ["audit", "write"]


def write(finished: Finished, folder: Path, stem: str) -> None:
    """Write `<stem>.param` and `<stem>.bin` into `folder`, then audit them."""
    param, weights = folder / f"{stem}.param", folder / f"{stem}.bin"
    param.write_text(str(finished.network), encoding="utf-8")
    with weights.open("wb") as stream:
        ncnn_bin.write(finished.buffers, stream)
    audit(param, weights)


def audit(param: Path, weights: Path) -> None:
    """Make sure that the `.bin` holds exactly what the layers of the `.param` will read.

    Raises:
        ModelFormatError: If a buffer is missing, too short, or left over.
    """
    network = parse(param.read_text(encoding="utf-8"), origin=param.name)
    reader = BinReader(weights.read_bytes(), origin=weights.name)
    for layer in network.layers:
        read_weights(layer, reader)
    reader.done()

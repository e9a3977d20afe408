"""Tensors in the files that tools load, and the entries of the manifest that name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qconvert.formats.hardware.files import FORMATS

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.backends.raw.placing import Place
    from qconvert.integer.program import Codes, Tensor

__all__ = ["write_words"]


def write_words(
    path: Path, form: str, tensor: Tensor, codes: Codes, place: Place
) -> dict[str, Any]:
    """Write the codes of a tensor.

    Args:
        path: Where the file goes; folders are made.
        form: One of `FORMATS`.
        tensor: Whose codes they are.
        codes: Of the tensor's shape.
        place: Their order.

    Returns:
        The keys of the file's entry that say how to read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    words = place.words(np.asarray(codes))
    with path.open("wb") as file:
        file.writelines(FORMATS[form].write(words, place.word(tensor), _notes(tensor, place)))
    return place.describe(tensor)


def _notes(tensor: Tensor, place: Place) -> list[str]:
    """What the head of a file says."""
    # Names come from the model and may hold anything; tools read plain lines only.
    name = tensor.name.encode("unicode_escape").decode("ascii")
    sign = "signed" if tensor.signed else "unsigned"
    word = place.word(tensor)
    kind = " signs and exponents" if tensor.encoding == "log2" else f", {sign}"
    return [
        f"{name}: {tensor.role} {place.axes}{list(place.shape)}, {tensor.bits} bits{kind}",
        f"order {place.order}: {place.depth} words of {word.lanes} x {word.bits} bits",
    ]

"""From the files a user names to the float (or Q/DQ) model they hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qconvert.content import require_unicode
from qconvert.errors import ModelFormatError, UsageError
from qconvert.frontends import FRONTENDS
from qconvert.source import Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.frontends import Frontend
    from qconvert.report import Report
    from qconvert.source import ReadOptions

__all__ = ["Loaded", "load", "recognize"]

_HEAD: Final = 1 << 16
_NCNN_MAGIC: Final = "7767517"
_CAFFE_WORD: Final = re.compile(
    r"^\s*(layers?|input|input_dim|name|input_shape)\s*[:{]", re.MULTILINE
)
_DARKNET_WORD: Final = re.compile(r"^\s*\[\s*net(work)?\s*\]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model as its frontend gave it.

    Attributes:
        model: The intermediate representation.
        frontend: Which format it came from.
        source: The files.
    """

    model: ir.Model
    frontend: str
    source: Source


def _topology_by_content(path: Path) -> str | None:
    """The format whose topology `path` holds, judged by its first bytes; None when unclear."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if b"\0" in head:
        return None
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        return None
    if text.lstrip().startswith(_NCNN_MAGIC):
        return "ncnn"
    if _DARKNET_WORD.search(text):
        return "darknet"
    return "caffe" if _CAFFE_WORD.search(text) else None


def _topology_by_suffix(path: Path) -> str | None:
    """The format whose topology has the suffix of `path`."""
    for frontend in FRONTENDS.values():
        if path.suffix.lower() in frontend.model_suffixes:
            return frontend.name
    return None


def _is_weights(path: Path) -> bool:
    """Whether the suffix is one that weights have."""
    return any(path.suffix.lower() in row.weight_suffixes for row in FRONTENDS.values())


def recognize(paths: Sequence[Path]) -> tuple[Frontend, Source]:
    """Tell topology from weights, and which frontend reads them; order does not matter.

    Args:
        paths: One or two files.

    Raises:
        ModelFormatError: If a file is missing or no frontend knows it.
        UsageError: If the two files do not make one model, or a name is not Unicode.
    """
    if len(paths) > 2:
        raise UsageError(
            f"{len(paths)} files are given",
            at=", ".join(str(path) for path in paths),
            why="a model is one file, or a topology and its weights",
            fix="give one model at a time",
        )
    for path in paths:
        require_unicode(path)
        if not path.is_file():
            raise ModelFormatError(
                f"there is no file '{path}'" if not path.exists() else f"'{path}' is not a file",
                at=str(path),
                fix="check the path",
            )
    kinds = {path: _topology_by_suffix(path) or _topology_by_content(path) for path in paths}
    topologies = [path for path in paths if kinds[path] and not _is_weights(path)]
    topologies = topologies or [path for path in paths if kinds[path]]
    if not topologies:
        raise _unknown(paths)
    if len(topologies) > 1:
        raise UsageError(
            "both files are model topologies",
            at=", ".join(str(path) for path in paths),
            why="a model is one topology and, where its format has them, one weights file",
            fix="give one model at a time",
        )
    model = topologies[0]
    weights = next((path for path in paths if path != model), None)
    frontend = FRONTENDS[str(kinds[model])]
    if weights is not None and not frontend.weight_suffixes:
        raise UsageError(
            f"the {frontend.name} format has one file a model",
            at=str(weights),
            why=f"'{model.name}' holds its weights itself",
            fix=f"leave '{weights.name}' out",
        )
    return frontend, Source(model, weights)


def _unknown(paths: Sequence[Path]) -> ModelFormatError:
    """The error for files no frontend knows."""
    known = ", ".join(
        " + ".join(row.model_suffixes[:1] + row.weight_suffixes[:1]) for row in FRONTENDS.values()
    )
    if len(paths) == 1 and _is_weights(paths[0]):
        return ModelFormatError(
            f"'{paths[0].name}' holds weights only",
            at=str(paths[0]),
            why="the layers stand in another file",
            fix=f"name both files; models are {known}",
        )
    return ModelFormatError(
        "this is not a model that qconvert knows",
        at=", ".join(str(path) for path in paths),
        why=f"models are {known}, told by suffix and content",
        fix="check the files",
    )


def load(paths: Sequence[Path], options: ReadOptions, report: Report) -> Loaded:
    """Read a model.

    Args:
        paths: MODEL [WEIGHTS], in any order.
        options: How to read it.
        report: For warnings.

    Raises:
        ModelFormatError: If a file is missing, damaged or not what it says.
        UnsupportedError: If it holds what qconvert cannot express.
        UsageError: If weights are missing, or a shape is given for no input.
    """
    frontend, source = recognize(paths)
    if frontend.weight_suffixes and source.weights is None and not options.random_weights:
        raise UsageError(
            "the weights are missing",
            at=str(source.model),
            why=f"the {frontend.name} format keeps them in a second file",
            fix=f"add the {frontend.weight_suffixes[0]} file to the command",
        )
    model = frontend.read(source, options, report)
    return Loaded(model, frontend.name, source)

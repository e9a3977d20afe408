"""Which release of ncnn a network needs.

A release is called by its date, as ncnn tags it (`20240102`; the wheels say `1.0.20240102`). What a
release lacks shows on the board as a crash or as wrong numbers, never as a message: so the oldest
release that can run a bundle is in its manifest, and `--ncnn-version` refuses what is newer.

The rules are what running every operator's artifacts on the wheels of 2022 to 2026 showed, read
again in the history of src/layer/*.cpp. Older releases than `OLDEST` broadcast, reshape and slice
otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.errors import Problem, UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.backends.ncnn.net import Draft, Net

__all__ = ["OLDEST", "Needs", "avoid_newer", "needs_of", "refuse_newer", "release_of"]

OLDEST: Final = "20230223"
"""The oldest release that anything here was run on with success."""

_LAYERS: Final = {"CELU": "20231027", "Erf": "20231027", "RMSNorm": "20240820"}
_UNARY: Final = {18: ("20230816", "UnaryOp round"), 19: ("20230816", "UnaryOp trunc")}
_BROADCAST: Final = "20230816"
_ATTENTION: Final = {
    (True, False): ("20230517", "MultiHeadAttention with a mask"),
    (False, True): ("20240820", "MultiHeadAttention with a scale"),
    (True, True): ("20240820", "MultiHeadAttention with a scale"),
}
_RECURRENT: Final = frozenset({"LSTM", "GRU", "RNN"})
_INTEGER_STEPS: Final = "20240820"
_INTEGER_ROWS: Final = "20241226"
_RELEASE: Final = re.compile(r"(?:1\.0\.)?(20[0-9]{6})")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a network needs.

    Attributes:
        release: The oldest release that can run it.
        because: Feature → first layer that uses it, for what `release` was the first to have;
            empty when any release since `OLDEST` will do.
    """

    release: str
    because: Mapping[str, str]


def release_of(text: object) -> str:
    """The release that a user means by `20240102` or `1.0.20240102`.

    Raises:
        UsageError: If it is not one, or older than anything that was tried.
    """
    match = _RELEASE.fullmatch(str(text).strip())
    if match is None:
        raise UsageError(
            f"--ncnn-version is {text}",
            why="releases of ncnn are called by their date",
            fix="give one like 20240102",
        )
    if match[1] < OLDEST:
        raise UsageError(
            f"--ncnn-version is {match[1]}",
            why=f"nothing here was tried on releases before {OLDEST}, which broadcast otherwise",
            fix=f"give {OLDEST} or a newer one, or leave the option out and try",
        )
    return match[1]


def needs_of(net: Net) -> Needs:
    """The oldest release that runs `net`."""
    found: dict[str, dict[str, str]] = {}
    for layer in net:
        need = _need(layer)
        if need is not None:
            found.setdefault(need[0], {}).setdefault(need[1], layer.name)
    release = max(found, default=OLDEST)
    return Needs(release, found.get(release, {}))


def avoid_newer(net: Net, release: str) -> None:
    """Let layers run in float that `release` cannot run on integers."""
    for layer in net:
        if layer.kind in _RECURRENT and layer.int(8) and release < _INTEGER_STEPS:
            for slot in ("xc", "hc"):
                codes, scales = layer.weights[slot], layer.weights.pop(f"{slot}_scales")
                rows = codes.astype(np.float32).reshape(scales.size, -1) / scales[:, np.newaxis]
                layer.weights[slot] = rows.astype(np.float32).reshape(codes.shape)
            layer.integers = None
            del layer.params[8]
            layer.details.pop("dynamic", None)
            layer.details["float"] = f"ncnn has it on integers since {_INTEGER_STEPS}"
        if layer.kind == "Embed" and layer.int(18) and release < _INTEGER_ROWS:
            scale = layer.weights.pop("weight_scale")
            layer.weights["weight"] = layer.weights["weight"].astype(np.float32) / scale[0]
            layer.integers = None
            del layer.params[18]
            layer.details["float"] = f"ncnn has it on integers since {_INTEGER_ROWS}"


def refuse_newer(net: Net, release: str) -> None:
    """Refuse a network that needs a newer release than `release`.

    Raises:
        UnsupportedError: With every layer that does.
    """
    problems = []
    for layer in net:
        need = _need(layer)
        if need is not None and need[0] > release:
            why = f"ncnn has it since {need[0]}"
            problems.append(Problem(f"'{need[1]}'", f"layer '{layer.name}'", why))
    if problems:
        raise UnsupportedError.of(
            problems, who=f"ncnn {release}", fix="use a newer ncnn, and say so with --ncnn-version"
        )


def _need(layer: Draft) -> tuple[str, str] | None:
    """The release a layer needs, and for what; None when `OLDEST` will do."""
    if layer.kind in _LAYERS:
        return _LAYERS[layer.kind], layer.kind
    if layer.kind == "MultiHeadAttention":
        return _ATTENTION.get((5 in layer.params, 6 in layer.params))
    if layer.kind == "UnaryOp":
        return _UNARY.get(layer.int(0))
    if layer.kind == "BinaryOp" and len({blob.shape for blob in layer.inputs}) > 1:
        return _BROADCAST, "BinaryOp on two shapes"
    return _need_of_integers(layer)


def _need_of_integers(layer: Draft) -> tuple[str, str] | None:
    """The release a layer needs for its integers."""
    if layer.kind in _RECURRENT and layer.int(8):
        return _INTEGER_STEPS, f"{layer.kind} on integers"
    if layer.kind == "Embed" and layer.int(18):
        return _INTEGER_ROWS, "Embed on integers"
    return None

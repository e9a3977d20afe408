"""A bundle's .param and .bin in the ncnn runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qconvert.bundle import MANIFEST, require_shape
from qconvert.content import read_text
from qconvert.formats import ncnn_param
from qconvert.runtimes.ncnn import Made, NcnnRuntime

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qconvert.bundle import Manifest

__all__ = ["open_deployed", "open_float", "open_model"]

_REQUANTIZES: Final = frozenset({"Convolution", "ConvolutionDepthWise"})
_KEYS: Final = {
    "properties": {
        "first_label": {
            "type": "object",
            "additionalProperties": {"type": "integer", "minimum": -(2**24), "maximum": 2**24},
        },
        "index_inputs": {"type": "object"},
    }
}
"""What this target adds to a manifest and reads again, as JSON Schema."""
_PASSES_CODES: Final = frozenset({"Split", "ReLU", "Flatten", "Padding"})


def open_model(folder: Path, manifest: Manifest) -> NcnnRuntime:
    """The artifact."""
    return _open(folder, manifest, "model")


def open_deployed(folder: Path, manifest: Manifest) -> NcnnRuntime:
    """The artifact with ncnn's own defaults: halves wherever the processor has them."""
    return _open(folder, manifest, "model", fp16=True)


def open_float(folder: Path, manifest: Manifest) -> NcnnRuntime:
    """The bundle's float model, which is the artifact itself when nothing is quantized."""
    return _open(folder, manifest, "float" if manifest.quantized else "model")


def _open(folder: Path, manifest: Manifest, stem: str, *, fp16: bool = False) -> NcnnRuntime:
    """One .param/.bin pair of a bundle."""
    require_shape(manifest.extra, _KEYS, folder / MANIFEST)
    param, names = folder / f"{stem}.param", manifest.blobs
    first = {
        names.get(name, name): int(label)
        for name, label in manifest.extra.get("first_label", {}).items()
    }
    network = ncnn_param.parse(
        read_text(param, "the .param", fix="convert again"), origin=str(param)
    )
    return NcnnRuntime(
        param,
        folder / f"{stem}.bin",
        inputs={
            entry["name"]: names.get(entry["name"], entry["name"]) for entry in manifest.inputs
        },
        outputs={
            entry["name"]: (names.get(entry["name"], entry["name"]), tuple(entry["shape"]))
            for entry in manifest.outputs
        },
        blobs=_blobs(network, first) | _index_inputs(manifest),
        fp16=fp16,
    )


def _index_inputs(manifest: Manifest) -> dict[str, Made]:
    """Input blobs that hold int32 numbers."""
    blobs = [manifest.blobs.get(name, name) for name in manifest.extra.get("index_inputs", {})]
    return {blob: Made(f"Input '{blob}'", indices=True) for blob in blobs}


def _blobs(network: ncnn_param.Network, first_labels: Mapping[str, int]) -> dict[str, Made]:
    """Every blob: who makes it, and whether it holds codes, as a requantizing convolution does."""
    holds: dict[str, Made] = {}
    for layer in network.layers:
        codes = layer.kind in _REQUANTIZES and layer.int(8, 0) > 100
        if layer.kind in _PASSES_CODES:
            codes = any(holds[blob].codes for blob in layer.inputs)
        for blob in layer.outputs:
            title = f"{layer.kind} '{layer.name}'"
            holds[blob] = Made(title, codes, first_labels.get(blob, 0))
    return holds

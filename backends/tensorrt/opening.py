"""Opens TensorRT bundles in onnxruntime, the stand-in for a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from qconvert.backends.tensorrt.simulate import simulated
from qconvert.content import read_graph, read_text
from qconvert.formats import tensorrt_cache
from qconvert.runtimes.tapped import TappedOnnx

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.bundle import Manifest
    from qconvert.quant import F32
    from qconvert.runtimes.onnx import OnnxRuntime

__all__ = ["open_bundle", "open_float"]


class Renamed(TappedOnnx):
    """A model of which some inputs or outputs could not keep their names.

    Args:
        model: A file, or a graph.
        folder: The bundle.
        manifest: Its manifest, which knows both names.

    Raises:
        ModelFormatError: If onnxruntime refuses the model, or it is not the manifest's.
    """

    def __init__(self, model: Path | ir.Model, folder: Path, manifest: Manifest) -> None:
        super().__init__(model)
        self._theirs = dict(manifest.blobs)
        self._ours = {theirs: ours for ours, theirs in manifest.blobs.items()}
        manifest.require_inputs([self._ours.get(name, name) for name in self.inputs], folder)

    @override
    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Run once, under our names."""
        feed = {self._theirs.get(name, name): array for name, array in inputs.items()}
        return {self._ours.get(k, k): array for k, array in super().run(feed).items()}


def open_bundle(folder: Path, manifest: Manifest) -> OnnxRuntime:
    """The artifact in onnxruntime: the Q/DQ model, or what a cache makes of the float model.

    Raises:
        ModelFormatError: If the bundle has no model, or onnxruntime refuses it.
    """
    by_role = {file.role: folder / file.path for file in manifest.files}
    if "model" in by_role or "calibration-cache" not in by_role:
        return Renamed(manifest.find(folder, "model"), folder, manifest)
    origin = by_role["calibration-cache"]
    cache = read_text(origin, "the calibration cache", fix="convert again")
    scales = tensorrt_cache.parse(cache, origin=str(origin)).scales
    plain = read_graph(manifest.find(folder, "float-model"), "the model", fix="convert again")
    floats = _float_layers(by_role.get("layer-precisions"))
    return Renamed(simulated(plain, scales, floats), folder, manifest)


def _float_layers(path: Path | None) -> frozenset[str]:
    """The layers that a file of precisions keeps in float."""
    if path is None:
        return frozenset()
    lines = read_text(path, "the file of precisions", fix="convert again").splitlines()
    return frozenset(line.rpartition(":")[0] for line in lines)


def open_float(folder: Path, manifest: Manifest) -> OnnxRuntime:
    """The bundle's float model in onnxruntime.

    Raises:
        ModelFormatError: If the bundle has no model, or onnxruntime refuses it.
    """
    return Renamed(manifest.find(folder, "float-model", "model"), folder, manifest)

"""Opens TensorRT bundles in onnxruntime, the stand-in for a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from qconvert.errors import ModelFormatError
from qconvert.runtimes.tapped import TappedOnnx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.bundle import Manifest
    from qconvert.quant import F32
    from qconvert.runtimes.onnx import OnnxRuntime

__all__ = ["find", "open_bundle", "open_float"]


def find(folder: Path, manifest: Manifest, roles: Sequence[str]) -> Path:
    """The first file that plays one of `roles`.

    Raises:
        ModelFormatError: If there is none.
    """
    by_role = {file.role: file.path for file in manifest.files}
    for role in roles:
        if role in by_role:
            return folder / by_role[role]
    raise ModelFormatError(
        "the bundle has no model",
        at=str(folder),
        why=f"its manifest names no file of role {' or '.join(roles)}",
        fix="convert again",
    )


class Renamed(TappedOnnx):
    """A model of which some inputs or outputs could not keep their names.

    Args:
        model: A file, or a graph.
        names: Our name → the model's.
    """

    def __init__(self, model: Path | ir.Model, names: Mapping[str, str]) -> None:
        super().__init__(model)
        self._theirs = dict(names)
        self._ours = {theirs: ours for ours, theirs in names.items()}

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
    return Renamed(find(folder, manifest, ("model", "float-model")), manifest.blobs)


def open_float(folder: Path, manifest: Manifest) -> OnnxRuntime:
    """The bundle's float model in onnxruntime.

    Raises:
        ModelFormatError: If the bundle has no model, or onnxruntime refuses it.
    """
    return Renamed(find(folder, manifest, ("float-model", "model")), manifest.blobs)

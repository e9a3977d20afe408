"""Writes ONNX bundles and opens them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx_ir.passes.common import InlinePass, RemoveUnusedOpsetsPass

from qconvert.backends.onnx.bias import quantize_biases
from qconvert.backends.onnx.layers import layer_rows
from qconvert.bundle import BundleFile, Written
from qconvert.formats import onnx_file
from qconvert.graph import IR_VERSION, OPSET
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.runtimes.tapped import TappedOnnx

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.bundle import Manifest
    from qconvert.errors import Problem
    from qconvert.target import WriteJob

__all__ = ["open_bundle", "open_float", "operators", "problems", "write"]


def operators() -> dict[str, str]:
    """Every operator of our opset, under its own name."""
    names = {
        schema.name
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.domain == "" and schema.since_version <= OPSET
    }
    return {
        name: name for name in sorted(names) if not onnx.defs.get_schema(name, OPSET).deprecated
    }


def problems(model: ir.Model) -> Sequence[Problem]:
    """Nothing: what the intermediate representation holds, ONNX can say."""
    del model
    return ()


def write(job: WriteJob) -> Written:
    """Write `model.onnx`, or `model.qdq.onnx` and `float.onnx`.

    Args:
        job: `options["keep_functions"]` leaves model-local functions as they are; they are
            expanded into standard operators otherwise.

    Returns:
        The files with their roles, and one row per layer with weights.
    """
    keep = bool(job.options.get("keep_functions", False))
    rows = layer_rows(job.model)
    model = _exported(job.model, keep_functions=keep)
    if not job.quantized:
        return Written(_save(model, job.folder / "model.onnx", "model"), rows)
    if not job.adopted:
        quantize_biases(model, job.report)
    files = _save(model, job.folder / "model.qdq.onnx", "model")
    plain = _exported(job.float_model, keep_functions=keep)
    files += _save(plain, job.folder / "float.onnx", "float-model")
    return Written(files, rows)


def open_bundle(folder: Path, manifest: Manifest) -> OnnxRuntime:
    """The artifact in onnxruntime.

    Raises:
        ModelFormatError: If the bundle has no model or another's, or onnxruntime refuses it.
    """
    path = manifest.find(folder, "model")
    runtime = TappedOnnx(path) if manifest.quantized else OnnxRuntime(path)
    manifest.require_inputs(runtime.inputs, folder)
    return runtime


def open_float(folder: Path, manifest: Manifest) -> OnnxRuntime:
    """The bundle's float model in onnxruntime: the artifact itself when nothing is quantized.

    Raises:
        ModelFormatError: If the bundle has no model or another's, or onnxruntime refuses it.
    """
    runtime = OnnxRuntime(manifest.find(folder, "float-model", "model"))
    manifest.require_inputs(runtime.inputs, folder)
    return runtime


def _exported(model: ir.Model, *, keep_functions: bool) -> ir.Model:
    """A copy to write: functions expanded, nothing in it but the network."""
    copy = model.clone()
    copy.ir_version = IR_VERSION
    copy.producer_name = "qconvert"
    copy.producer_version = None
    if not keep_functions:
        InlinePass()(copy)
    RemoveUnusedOpsetsPass()(copy)
    for node in copy.graph:
        node.metadata_props.clear()  # places in the source are for messages only
    return copy


def _save(model: ir.Model, path: Path, role: str) -> list[BundleFile]:
    """Write one model, its weights beside it when they are too large for one file."""
    first, *rest = onnx_file.write(model, path)
    return [BundleFile(first.name, role), *(BundleFile(file.name, f"{role}-data") for file in rest)]

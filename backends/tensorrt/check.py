"""Checks that need no runtime: do the files of a bundle follow the rules, and agree?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.backends.tensorrt.lint import lint
from qconvert.backends.tensorrt.models import weight_of
from qconvert.backends.tensorrt.names import is_clean
from qconvert.backends.tensorrt.placement import reads_integers
from qconvert.backends.tensorrt.sameness import Groups
from qconvert.backends.tensorrt.version import parse
from qconvert.backends.tensorrt.weights import TOP
from qconvert.content import read_graph, read_text
from qconvert.errors import ModelFormatError, UsageError
from qconvert.formats import tensorrt_cache
from qconvert.graph import constant
from qconvert.target import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.backends.tensorrt.version import Version
    from qconvert.bundle import Manifest
    from qconvert.formats.tensorrt_cache import Cache
    from qconvert.quant import F32

__all__ = ["check", "version_of"]


def version_of(folder: Path, manifest: Manifest) -> Version:
    """The version of TensorRT that a bundle is for.

    Raises:
        ModelFormatError: If the manifest does not say.
    """
    entry = manifest.extra.get("tensorrt")
    try:
        return parse(str(entry["version"] if isinstance(entry, dict) else None))
    except (KeyError, UsageError) as error:
        raise ModelFormatError(
            "the manifest does not say which TensorRT the bundle is for",
            at=str(folder),
            why=f"its entry is {entry!r}",
            fix="convert again",
        ) from error


def check(folder: Path, manifest: Manifest) -> list[Finding]:
    """What TensorRT will not like in a bundle, and where its files contradict one another."""
    version = version_of(folder, manifest)
    files = {entry.path: folder / entry.path for entry in manifest.files}
    plain, quantized = (
        read_graph(files[name], f"'{name}'", fix="convert again") if name in files else None
        for name in ("model.onnx", "model.qdq.onnx")
    )
    found = [] if quantized is None else lint(quantized)
    for name, model in (("model.onnx", plain), ("model.qdq.onnx", quantized)):
        if model is not None:
            found += _opset(name, model, version)
    if "calibration.cache" in files and plain is not None:
        text = read_text(files["calibration.cache"], "the calibration cache", fix="convert again")
        rows = tensorrt_cache.parse(text, origin=str(files["calibration.cache"]))
        found += [*_header(rows, version), *_rows(rows, plain)]
        if quantized is not None:
            found += [*_same_scales(rows, quantized), *_same_weights(plain, quantized)]
    return found


def _opset(name: str, model: ir.Model, version: Version) -> Iterator[Finding]:
    opset = model.graph.opset_imports.get("", 0)
    if opset > version.opset:
        what = f"it is in opset {opset}; TensorRT {version} reads up to {version.opset}"
        yield Finding("opset", name, what, refused=True)


def _header(rows: Cache, version: Version) -> Iterator[Finding]:
    if not version.reads_cache:
        yield Finding("cache", "calibration.cache", f"TensorRT {version} reads none", refused=True)
    elif rows.version != version.number:
        what = f"its header says {rows.version}; TensorRT {version} drops all but {version.number}"
        yield Finding("cache", "calibration.cache", what, refused=True)


def _rows(rows: Cache, plain: ir.Model) -> Iterator[Finding]:
    """Every row names a tensor, every tensor has a row, and the same numbers one scale."""
    graph = plain.graph
    tensors = {str(v.name) for node in graph for v in node.outputs}
    tensors |= {str(value.name) for value in graph.inputs}
    for name in rows.scales:
        if name not in tensors:
            yield Finding("cache", f"row '{name}'", "model.onnx has no such tensor", refused=True)
        elif not is_clean(name):
            yield Finding("cache", f"row '{name}'", "readers split this name", refused=True)
    groups = Groups.of(graph)
    absent = [str(value.name) for value in groups.order if str(value.name) not in rows.scales]
    if absent:
        what = (
            f"{len(absent)} tensors have no row, and TensorRT keeps what touches them in float: "
            f"{', '.join(absent[:6])}{', ...' if len(absent) > 6 else ''}"
        )
        yield Finding("cache", "calibration.cache", what)
    for group in groups:
        scales = {rows.scales.get(str(value.name)) for value in group} - {None}
        if len(scales) > 1:
            names = ", ".join(f"'{value.name}'" for value in group)
            yield Finding("cache", names, f"the same numbers have {len(scales)} scales")


def _same_scales(rows: Cache, quantized: ir.Model) -> Iterator[Finding]:
    """A tensor that both the cache and the Q/DQ model know has one scale."""
    for node in quantized.graph:
        source = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        if source is None or constant(source) is not None or str(source.name) not in rows.scales:
            continue
        scale = constant(node.inputs[1])
        if scale is None or np.float32(rows.scales[str(source.name)]) != scale.reshape(-1)[0]:
            what = "the cache has another scale than the Q/DQ model"
            yield Finding("agreement", f"tensor '{source.name}'", what, refused=True)


def _same_weights(plain: ir.Model, quantized: ir.Model) -> Iterator[Finding]:
    """TensorRT derives, from the float weights, the scales that the Q/DQ model has.

    Channels whose codes stay below 127 are free: their scale cannot be derived.
    """
    floats = {str(node.name): node for node in plain.graph}
    for node in quantized.graph:
        twin = floats.get(str(node.name))
        found = weight_of(node) if twin is not None and reads_integers(node) else None
        weight = constant(twin.inputs[1]) if twin is not None and found is not None else None
        if found is None or weight is None:
            continue
        real, scale, axis = found
        wrong = _underived(np.asarray(weight, np.float32), real, scale, axis)
        if wrong:
            what = f"TensorRT derives another scale than searched for {wrong} channels"
            yield Finding("agreement", f"weight of '{node.name}'", what, refused=True)


def _underived(weight: F32, real: F32, scale: F32, axis: int) -> int:
    """How many full channels have a derived scale that is not theirs."""
    count = weight.shape[axis]
    largest = np.abs(np.moveaxis(weight, axis, 0).reshape(count, -1)).max(axis=1)
    wanted = np.abs(np.moveaxis(real, axis, 0).reshape(count, -1)).max(axis=1)
    full = wanted == (scale * np.float32(TOP)).astype(np.float32)
    derived = (largest / np.float32(TOP)).astype(np.float32)
    return int((full & (derived != scale)).sum())

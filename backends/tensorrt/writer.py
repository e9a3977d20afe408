"""Writes TensorRT bundles.

model.qdq.onnx        scales in Q/DQ nodes, for TensorRT 8 and newer
calibration.cache     scales in rows, for TensorRT 10 and older
model.onnx            the float model; beside a cache, with weights that carry their scales
ranges.json           the scale of every tensor
layer_precisions.txt  layers that stay in float
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx_ir.passes.common import InlinePass

from qconvert.backends.tensorrt import models
from qconvert.backends.tensorrt.cache import cache
from qconvert.backends.tensorrt.command import commands
from qconvert.backends.tensorrt.network import inline
from qconvert.backends.tensorrt.operators import known
from qconvert.backends.tensorrt.operators import problems as unknown
from qconvert.backends.tensorrt.opset import lower, spell_out
from qconvert.backends.tensorrt.options import Options, read
from qconvert.backends.tensorrt.precisions import float_layers
from qconvert.backends.tensorrt.precisions import text as precision_text
from qconvert.backends.tensorrt.ranges import dialect, ranges
from qconvert.backends.tensorrt.scales import paired, tensor_scales
from qconvert.backends.tensorrt.version import OPTION, wanted
from qconvert.bundle import BundleFile, Written
from qconvert.errors import UnsupportedError
from qconvert.formats import onnx_file
from qconvert.qdq import pair_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from qconvert.backends.tensorrt.version import Version
    from qconvert.errors import Problem
    from qconvert.target import WriteJob

__all__ = ["CACHE", "PRECISIONS", "RANGES", "prepare", "problems", "write"]

CACHE, RANGES, PRECISIONS = "calibration.cache", "ranges.json", "layer_precisions.txt"


def problems(model: ir.Model) -> Sequence[Problem]:
    """Everything in `model` that no version of TensorRT reads; empty: all is well."""
    copy = model
    if model.functions:
        copy = model.clone()
        InlinePass()(copy)
    return unknown(copy.graph)


def prepare(model: ir.Model, options: Mapping[str, Any]) -> None:
    """Expand functions, and operators that the version lacks, so that all their values get scales.

    Without a version (a calibration names none) operators stay.
    """
    inline(model)
    if options.get(OPTION):
        version = wanted(options)
        spell_out(model, version.opset, lambda operator: known(operator, version))


def write(job: WriteJob) -> Written:
    """Write the artifact of `job` for one version of TensorRT.

    Raises:
        UsageError: If the version is missing, or does not read what is asked for.
        UnsupportedError: With everything that version cannot express, before anything is written.
    """
    options = read(job.options)
    plain, ends = models.prepared(job.float_model, job.report)
    if not job.quantized:
        _lowered(plain, options.version)
        files = _save(plain, job, "model.onnx", "model")
        lines = commands(options.version, [], quantized=False)
        return Written(files, models.rows(plain, {}), ends, _extra(options, plain, lines))
    quantized, _ = models.prepared(job.model)
    return _write_quantized(job, options, plain, quantized, ends)


def _write_quantized(
    job: WriteJob, options: Options, plain: ir.Model, quantized: ir.Model, ends: dict[str, str]
) -> Written:
    """Write what a quantized bundle has for the version."""
    version = options.version
    floats = float_layers(quantized)
    placed = _placed(quantized)
    changed = models.float_weights(plain, quantized, job.report) if version.reads_cache else {}
    rows = models.rows(quantized, changed)
    pairs = paired(quantized)
    models.spell_out_weights(quantized)
    wanted = [(plain, "model.onnx", "float-model")]
    if version.reads_qdq:
        wanted.insert(0, (quantized, "model.qdq.onnx", "model"))
    for model, _, _ in wanted:
        _lowered(model, version)
    scales = tensor_scales(plain, pairs)
    files = [file for model, name, role in wanted for file in _save(model, job, name, role)]
    texts = {
        RANGES: ("ranges", ranges(scales, placed, floats)),
        PRECISIONS: ("layer-precisions", precision_text(floats)),
    }
    if version.reads_cache:
        texts[CACHE] = "calibration-cache", str(cache(scales, version, job.report))
    for name in options.dialects:
        file, text = dialect(name, scales)
        texts[file] = f"ranges-{name}", text
    for file, (role, text) in texts.items():
        (job.folder / file).write_text(text, encoding="utf-8")
        files.append(BundleFile(file, role))
    lines = commands(version, floats, quantized=True)
    return Written(files, rows, ends, _extra(options, plain, lines))


def _placed(quantized: ir.Model) -> frozenset[str]:
    """Tensors with a pair that something reads."""
    pairs = [pair_of(node.outputs[0]) for node in quantized.graph if node.outputs]
    return frozenset(
        str(pair.source.name) for pair in pairs if pair is not None and pair.output.uses()
    )


def _lowered(model: ir.Model, version: Version) -> None:
    """Rewrite `model` in the version's opset.

    Raises:
        UnsupportedError: With every operator that has no form there.
    """
    # TensorRT 5 and 6 read no Q/DQ, and what they are given has none.
    found = lower(model, version.opset, lambda operator: known(operator, version))
    found += unknown(model.graph, version)
    if found:
        raise UnsupportedError.of(
            list({problem.at: problem for problem in found}.values()),
            who=f"TensorRT {version}",
            fix="use a newer TensorRT, or leave heads to the program with --cut-heads",
        )
    for node in model.graph:
        node.metadata_props.clear()  # places in the source are for messages only


def _save(model: ir.Model, job: WriteJob, name: str, role: str) -> list[BundleFile]:
    first, *rest = onnx_file.write(model, job.folder / name)
    return [BundleFile(first.name, role), *(BundleFile(file.name, f"{role}-data") for file in rest)]


def _extra(options: Options, model: ir.Model, lines: Sequence[str]) -> dict[str, Any]:
    """What the manifest says of the target."""
    return {
        "tensorrt": {
            "version": str(options.version),
            "opset": model.graph.opset_imports[""],
            "built": False,
        },
        "commands": list(lines),
    }

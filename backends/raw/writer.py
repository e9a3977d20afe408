"""Writes raw bundles and opens them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes.common import InlinePass, RemoveUnusedOpsetsPass

from qconvert.backends.raw.files import Files
from qconvert.backends.raw.golden import compute, replay
from qconvert.backends.raw.lower import lower
from qconvert.backends.raw.options import Options
from qconvert.backends.raw.policy import POLICY
from qconvert.backends.raw.report import measure, page
from qconvert.backends.raw.rows import layer_rows
from qconvert.backends.raw.schema import check_manifest
from qconvert.bundle import MANIFEST, BundleFile, Written
from qconvert.errors import CalibrationError, ModelFormatError, UnsupportedError
from qconvert.formats import onnx_file
from qconvert.formats.hardware.order import Layout
from qconvert.graph import IR_VERSION
from qconvert.integer.document import describe_program, read_program
from qconvert.runtimes.integer import IntegerRuntime
from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.bundle import Manifest
    from qconvert.errors import Problem
    from qconvert.target import Exact, WriteJob

__all__ = ["open_bundle", "open_float", "operators", "problems", "vectors", "write"]

_FLOAT_MODEL = "float.onnx"


def operators() -> dict[str, str]:
    """ONNX operator → the program's word for it."""
    return {rule.op_type: rule.note.split(":")[0] for rule in POLICY.rules.values()}


def problems(model: ir.Model) -> Sequence[Problem]:
    """Nothing: what has no integer form is a float segment."""
    del model
    return ()


def write(job: WriteJob) -> Written:
    """Write the program, its parameters, its golden vectors and its float model.

    Raises:
        CalibrationError: If the model is not quantized.
        UnsupportedError: If nothing of it, or with `--integer-only` not all of it, runs on
            integers.
    """
    options = Options.of(job.options)
    if not job.quantized:
        raise CalibrationError(
            "an integer program needs scales",
            why="there is no calibration data, and the model brings no QuantizeLinear nodes",
            fix="add --calib DATA",
        )
    lowered = lower(job.model, options, job.report)
    program = lowered.program
    if all(layer.op == "float" for layer in program.layers):
        raise UnsupportedError(
            "no layer of this model runs on integers",
            why="; ".join(f"'{name}': {why}" for name, why in list(lowered.floats.items())[:8]),
            fix="see `qconvert inspect MODEL --to raw`",
        )
    files = Files(job.folder, program, Layout.parse(options.layout), options.emit)
    for path, content in lowered.segments.items():
        files.content(path, content, "float-segment")
    entries = files.parameters()
    with IntegerRuntime(program, lambda name: job.folder / name) as runtime:
        cases = compute(runtime, job.samples, options.golden, accumulators=options.accumulators)
        golden = [files.case(case) for case in cases]
        costs = measure(runtime, job.float_model, job.samples)
    files.content("report.md", page(program, costs, lowered.floats).encode(), "report")
    for file in onnx_file.write(_exported(job.float_model), job.folder / _FLOAT_MODEL):
        files.written.append(BundleFile(file.name, "float-model"))
    return Written(
        files.written,
        layer_rows(program, costs.layers),
        extra={
            **describe_program(program, entries),
            "golden": golden,
            "report": dict(costs.totals),
        },
    )


def open_bundle(folder: Path, manifest: Manifest) -> IntegerRuntime:
    """The artifact in the integer executor.

    Raises:
        VerificationError: If the manifest does not follow the schema, or codes lie outside their
            range.
        ModelFormatError: If a file does not hold what the manifest says.
    """
    if (folder / MANIFEST).exists():  # not while the bundle is being made
        check_manifest(folder / MANIFEST)
    document = {**manifest.extra, "layers": [row.to_json() for row in manifest.layers]}
    return IntegerRuntime(read_program(document, folder), lambda name: folder / name)


def open_float(folder: Path, manifest: Manifest) -> OnnxRuntime:
    """The bundle's float model in onnxruntime.

    Raises:
        ModelFormatError: If the bundle has none or another's, or onnxruntime refuses it.
    """
    paths: Mapping[str, str] = {file.role: file.path for file in reversed(manifest.files)}
    if "float-model" not in paths:
        raise ModelFormatError(
            "the bundle has no float model",
            at=str(folder),
            why="its manifest names no file of role float-model",
            fix="convert again",
        )
    runtime = OnnxRuntime(folder / paths["float-model"])
    manifest.require_inputs(runtime.inputs, folder)
    return runtime


def vectors(folder: Path, manifest: Manifest) -> Iterator[Exact]:
    """Every golden vector beside what the executor computes from the bundle's files."""
    with open_bundle(folder, manifest) as runtime:
        yield from replay(runtime, manifest.extra.get("golden", ()), folder)


def _exported(model: ir.Model) -> ir.Model:
    """A copy to write: functions expanded, nothing in it but the network."""
    copy = model.clone()
    copy.ir_version = IR_VERSION
    copy.producer_name = "qconvert"
    copy.producer_version = None
    InlinePass()(copy)
    RemoveUnusedOpsetsPass()(copy)
    for node in copy.graph:
        node.metadata_props.clear()  # places in the source are for messages only
    return copy

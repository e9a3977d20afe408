"""The ncnn target: what it is given, what it writes, how its bundles are opened."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from qconvert.backends.ncnn.cost import cost_of
from qconvert.backends.ncnn.examples import Ends, write_examples
from qconvert.backends.ncnn.finish import Finished, finish
from qconvert.backends.ncnn.heads import FIRST_LABEL
from qconvert.backends.ncnn.integers import table_of
from qconvert.backends.ncnn.lower import Lowered, lower
from qconvert.backends.ncnn.opening import open_deployed, open_float, open_model
from qconvert.backends.ncnn.optimize import optimize, prepare_integers
from qconvert.backends.ncnn.policy import POLICY
from qconvert.backends.ncnn.registry import words
from qconvert.backends.ncnn.versions import avoid_newer, needs_of, refuse_newer, release_of
from qconvert.backends.ncnn.writer import write as write_files
from qconvert.bundle import BundleFile, LayerRow, Written
from qconvert.errors import UnsupportedError
from qconvert.graph import index_rows
from qconvert.runtimes.ncnn import require
from qconvert.target import Backend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from qconvert.backends.ncnn.net import Draft, Net
    from qconvert.errors import Problem
    from qconvert.report import Report
    from qconvert.target import WriteJob

__all__ = ["BACKEND", "problems", "write"]

_FLOAT: Final = 32


def problems(model: ir.Model) -> Sequence[Problem]:
    """Everything in `model` that ncnn cannot express; empty: all is well."""
    return lower(model).problems


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse values that make no sense.

    Raises:
        UsageError: If `ncnn_version` is no release.
    """
    if options.get("ncnn_version") is not None:
        release_of(options["ncnn_version"])


def write(job: WriteJob) -> Written:
    """Write the artifact of `job`: `model.param|bin`, and for a quantized model the rest.

    Options: `fp16` stores the float weights of `model.bin` as halves; `relaxed_range` leaves out
    the Clips of inputs with fewer than 8 bits; `shape_hints` writes the shape of every blob;
    `ncnn_version` names the oldest release that has to run the artifact.

    Raises:
        UnsupportedError: With everything ncnn cannot express, before anything is written.
        UsageError: If `ncnn_version` is none.
    """
    release = job.options.get("ncnn_version")
    net = _lowered(job.model)
    float_net = _lowered(job.float_model) if job.quantized else None
    optimize(net)
    prepare_integers(net, relaxed_range=bool(job.options.get("relaxed_range")))
    if release is not None:
        avoid_newer(net, release_of(release))
        refuse_newer(net, release_of(release))
    hints = bool(job.options.get("shape_hints"))
    finished = finish(net, fp16=bool(job.options.get("fp16")), hints=hints)
    write_files(finished, job.folder, "model")
    files = [BundleFile("model.param", "model"), BundleFile("model.bin", "weights")]
    float_finished = None
    if float_net is not None:
        optimize(float_net, for_table=True)
        float_finished = finish(float_net, hints=hints)
        write_files(float_finished, job.folder, "float")
        table = table_of(finished, float_finished)
        (job.folder / "model.table").write_text(str(table), encoding="utf-8")
        files += [
            BundleFile("float.param", "float-model"),
            BundleFile("float.bin", "float-weights"),
            BundleFile("model.table", "table"),
        ]
    examples = write_examples(job.folder, _ends(net, finished, job.model), job.preprocessing)
    files += [BundleFile(name, "example") for name in examples]
    rows = [_row(name, draft) for name, draft in finished.drafts if draft.kind != "Input"]
    _report(rows, job.report)
    cost = {
        "model": cost_of(finished).to_json(),
        "float": None if float_finished is None else cost_of(float_finished).to_json(),
    }
    extra = {**_ends_told(net, job.model), "oldest_ncnn": asdict(needs_of(net)), "cost": cost}
    return Written(files, rows, _renamed(net, finished), extra)


def _ends_told(net: Net, model: ir.Model) -> dict[str, Any]:
    """What the manifest says of inputs that are indices and outputs that are detections."""
    labels = {name: first for name in net.outputs if (first := _first_label(net, name))}
    found = {str(value.name): index_rows(value) for value in model.graph.inputs}
    indices = {name: count for name, count in found.items() if count is not None}
    return {
        **({"index_inputs": indices} if indices else {}),
        **({"first_label": labels} if labels else {}),
    }


def _lowered(model: ir.Model) -> Net:
    """The layers of `model`, or one error with all its problems."""
    result: Lowered = lower(model)
    if result.problems:
        raise UnsupportedError.of(
            result.problems,
            who="ncnn",
            fix="see `qconvert formats` for what ncnn takes",
        )
    return result.net


def _first_label(net: Net, name: str) -> int:
    """What an output calls the first class."""
    maker = net.producer(net.outputs[name])
    first = maker.details.get(FIRST_LABEL, 0) if maker is not None else 0
    assert isinstance(first, int)
    return first


def _ends(net: Net, finished: Finished, model: ir.Model) -> Ends:
    """Blobs and shapes of what goes in and comes out."""
    inputs = [layer.output for layer in net.layers if layer.kind == "Input"]
    shapes = {
        str(value.name): tuple(size if isinstance(size, int) else -1 for size in value.shape or ())
        for value in model.graph.outputs
    }
    return Ends(
        {finished.blobs[blob.name]: blob.shape for blob in inputs},
        {finished.blobs[name]: shapes[name] for name in net.outputs},
        {finished.blobs[name]: _first_label(net, name) for name in net.outputs},
        frozenset(
            finished.blobs[str(value.name)]
            for value in model.graph.inputs
            if index_rows(value) is not None
        ),
    )


def _renamed(net: Net, finished: Finished) -> dict[str, str]:
    """Network inputs and outputs whose blob has another name."""
    inputs = [layer.output.name for layer in net.layers if layer.kind == "Input"]
    names = (*inputs, *net.outputs)
    return {name: finished.blobs[name] for name in names if finished.blobs[name] != name}


def _row(name: str, draft: Draft) -> LayerRow:
    """The manifest's entry of one layer."""
    record = draft.integers
    if record is None:
        return LayerRow(name, draft.kind, _FLOAT, details=dict(draft.details))
    return LayerRow(
        name,
        draft.kind,
        record.bits,
        [float(scale) for scale in record.weight_scales],
        record.input_scale or None,
        dict(draft.details),
    )


def _report(rows: Sequence[LayerRow], report: Report) -> None:
    """Say where ncnn does less than the quantized model asks for."""
    for row in rows:
        why = row.details.get("float")
        if why:
            report.kept("ncnn int8", row.name, str(why))
            report.warn(f"layer '{row.name}' runs in float on ncnn: {why}")
        if row.details.get("winograd") is False:
            report.kept("ncnn winograd", row.name, str(row.details["why"]))


BACKEND: Final = Backend(
    name="ncnn",
    policy=POLICY,
    write=write,
    problems=problems,
    open=open_model,
    open_float=open_float,
    operators=words,
    require=require,
    open_deployed=open_deployed,
    check_options=check_options,
)

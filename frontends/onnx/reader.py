"""Reads an ONNX file into the intermediate representation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import onnx
import onnx_ir as ir

from qconvert import errors
from qconvert.errors import ModelFormatError, Problem, UnsupportedError
from qconvert.frontends.onnx.budget import Budget
from qconvert.frontends.onnx.container import Weights, parse
from qconvert.frontends.onnx.finish import finish
from qconvert.frontends.onnx.hollow import hollow, refill
from qconvert.frontends.onnx.ops import CONVERTERS
from qconvert.frontends.onnx.sandbox import Answer, sandbox
from qconvert.frontends.onnx.standard import standard_operators

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.report import Report
    from qconvert.source import ReadOptions, Source

__all__ = ["operators", "read"]

_CLASSES: Final = {
    "ModelFormatError": errors.ModelFormatError,
    "UsageError": errors.UsageError,
}


def operators() -> list[str]:
    """Every operator that is read; those outside the standard with their domain."""
    others = {f"{domain}::{op}" if domain else op for domain, op in CONVERTERS}
    return sorted({*standard_operators(), *others, "If", "Loop"})


def read(source: Source, options: ReadOptions, report: Report) -> ir.Model:
    """Read an ONNX model of any opset from 7 on.

    Args:
        source: `model` is the `.onnx` file; external data lies in its folder.
        options: `input_shapes` and `simplify`.
        report: Told what was changed on the way.

    Returns:
        The model: opset 21, float32 at its inputs and outputs and inside (Q/DQ codes keep their
        types), batch 1, every shape known, constants folded.

    Raises:
        ModelFormatError: If a file is missing, damaged, or not what it says.
        UnsupportedError: With everything in the model that cannot be read.
        UsageError: If an input shape is given for something that is no input.
    """
    helper = sandbox()
    helper.start()  # its imports run while the file is parsed
    file = source.model.name
    slim, large = _opened(source.model)
    job = {
        "opaque": sorted(large),
        "input_shapes": {name: list(shape) for name, shape in options.input_shapes.items()},
        "file": file,
    }
    content = slim.SerializeToString()
    budget = Budget(helper, len(content))
    answer = budget.run("normalize", job, content)
    _raise(answer, str(source.model))
    for warning in answer.info["warnings"]:
        report.warn(warning)
    normalized = answer.result
    if options.simplify:
        normalized = _simplified(normalized, job, budget, report)
    model = ir.from_proto(onnx.ModelProto.FromString(normalized))
    refill(model, large)
    finish(model)
    return model


def _opened(path: Path) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """The model without its large weights, and those; see `hollow`.

    Raises:
        ModelFormatError: If a file is missing, damaged, or not what it says.
    """
    try:
        proto = parse(path)
        weights = Weights(path)
        weights.check(proto)
        return hollow(proto, weights)
    except UnicodeDecodeError as error:  # texts of a message are decoded when they are looked at
        raise errors.ModelFormatError(
            "this is not an ONNX file",
            at=str(path),
            why="a name in it is not Unicode",
            fix="give the .onnx file an exporter wrote, whole",
        ) from error


def _simplified(normalized: bytes, job: dict[str, Any], budget: Budget, report: Report) -> bytes:
    """The model after onnxsim; as it was when onnxsim fails or changes the interface."""
    answer = budget.run("simplify", {}, normalized)
    if answer.outcome != "done":
        reason = answer.info.get("why") or answer.info.get("bug", "").strip().split("\n")[-1]
        report.warn(f"onnxsim did not simplify the model ({reason}); it is used without")
        return normalized
    # onnxsim may leave shapes open or use operators in ways of its own: the same walk again.
    again = budget.run("normalize", job, answer.result)
    if again.outcome != "done":
        reason = again.info.get("what") or again.info.get("why") or "it failed"
        report.warn(f"what onnxsim made of the model cannot be read ({reason}); it is not used")
        return normalized
    if _interface(again.result) != _interface(normalized):
        report.warn("onnxsim changed the inputs or outputs of the model; its result is not used")
        return normalized
    return again.result


def _interface(content: bytes) -> list[tuple[str, bytes]]:
    """Names and types of a model's outputs, and of its inputs in order of their names."""
    graph = onnx.ModelProto.FromString(content).graph
    outputs = [(value.name, value.type.SerializeToString()) for value in graph.output]
    inputs = sorted((value.name, value.type.SerializeToString()) for value in graph.input)
    return outputs + inputs


def _raise(answer: Answer, at: str) -> None:
    """Raise what a job refused or died of.

    Raises:
        ModelFormatError: If the model broke ONNX's rules, or its reader.
        UnsupportedError: If the job listed problems.
        RuntimeError: If the job has a bug.
    """
    info = answer.info
    if answer.outcome == "done":
        return
    if "bug" in info:
        raise RuntimeError(f"the ONNX reader failed:\n{info['bug']}")
    if answer.outcome != "refused":
        raise ModelFormatError(
            "the model cannot be worked out within bounds",
            at=at,
            why=f"reading it ended with: {info.get('why', answer.outcome)}",
            fix="the file is damaged or hostile, or far larger than an image network",
        )
    place = {"at": info["at"] or at, "why": info["why"], "fix": info["fix"]}
    if info["class"] == "UnsupportedError":
        problems = [Problem(*row) for row in info["problems"]]
        raise UnsupportedError(info["what"], problems=problems, **place)
    raise _CLASSES.get(info["class"], ModelFormatError)(info["what"], **place)

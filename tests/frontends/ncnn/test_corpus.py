from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qconvert.frontends.ncnn import read
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.source import ReadOptions, Source
from qconvert.verification.metrics import cosine

if TYPE_CHECKING:
    from pathlib import Path

MODELS = ("ncnn_fastestdet", "ncnn_nanodet_m", "ncnn_scrfd_500m", "ncnn_squeezenet_v1.1")


def load(folder: Path) -> tuple[ir.Model, Any, Report]:
    (param,), (weights,) = folder.glob("*.param"), folder.glob("*.bin")
    reference = np.load(folder / "reference.npz")
    report = Report()
    blob = "data" if "squeezenet" in folder.name else "input.1"
    options = ReadOptions(input_shapes={blob: reference["input_0"].shape})
    return read(Source(param, weights), options, report), reference, report


@pytest.mark.parametrize("name", MODELS)
def test_a_real_network_gives_what_ncnn_gives(name: str, corpus: Path) -> None:
    model, reference, report = load(corpus / "models" / name)

    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    with OnnxRuntime(model, threads=1) as runtime:
        (blob,) = runtime.inputs
        cases = [key for key in reference.files if key.startswith("input_")]
        for index in range(len(cases)):
            outputs = runtime.run({blob: reference[f"input_{index}"]})
            prefix = f"out_{index}::"
            wanted = {k.removeprefix(prefix): k for k in reference.files if k.startswith(prefix)}
            assert set(wanted) == set(outputs)
            for output, key in wanted.items():
                given, right = outputs[output], reference[key]
                assert given.shape == (1, *right.shape)
                assert cosine(right, given) > 0.99999
                assert np.abs(given[0] - right).max() < 1e-4 * (right.max() - right.min())
    assert not report.warnings


@pytest.mark.parametrize("name", MODELS)
def test_names_are_those_of_the_file_and_every_node_has_a_place(name: str, corpus: Path) -> None:
    model, _, _ = load(corpus / "models" / name)

    (param,) = (corpus / "models" / name).glob("*.param")
    rows = [line.split() for line in param.read_text().splitlines()[2:] if line.strip()]
    layers = {row[1] for row in rows if row[0] not in {"Input", "Split"}}
    nodes = {str(node.name) for node in model.graph}
    values = {str(value.name) for node in model.graph for value in node.outputs}
    blobs = {
        blob
        for row in rows
        if row[0] not in {"Input", "Split"}
        for blob in row[4 + int(row[2]) : 4 + int(row[2]) + int(row[3])]
    }

    assert layers <= nodes
    assert blobs <= values
    assert not any("splitncnn" in value for value in values)
    assert all(node.metadata_props["qconvert.place"].startswith(param.name) for node in model.graph)

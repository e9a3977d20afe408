"""What a file says of its outputs, and what its graph makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from qconvert.errors import ModelFormatError
from qconvert.graph import shape_of
from qconvert.report import Report
from tests.frontends.onnx.onnx_files import load, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("simplify", [False, True], ids=["plain", "onnxsim"])
@pytest.mark.parametrize(
    ("declared", "warned"),
    [("1, 4", False), ("N, 4", False), ("1, 5", True), ("4", True), ("1, 4, 1", True)],
)
def test_an_output_shape_that_the_graph_contradicts_is_told(
    declared: str, warned: bool, simplify: bool, tmp_path: Path
) -> None:
    path = write(tmp_path, f"g (float[1, 4] x) => (float[{declared}] y) {{ y = Relu(x) }}")
    report = Report()

    model = load(path, report, simplify=simplify)

    assert shape_of(model.graph.outputs[0]) == (1, 4)
    told = [text for text in report.warnings if "[1, 4]" in text and "'y'" in text]
    assert bool(told) == warned
    assert all(f"[{declared}]" in text for text in told)


def test_a_declared_batch_is_no_contradiction_of_batch_one(tmp_path: Path) -> None:
    path = write(tmp_path, "g (float[8, 4, 3, 3] x) => (float[8, 4, 3, 3] y) { y = Relu(x) }")
    report = Report()

    load(path, report)

    assert not [text for text in report.warnings if "declared as" in text]


def test_outputs_of_one_name_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "g (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }")
    file = onnx.load(path)
    file.graph.output.append(file.graph.output[0])
    onnx.save(file, path)

    with pytest.raises(ModelFormatError, match="several outputs called 'y'") as caught:
        load(path)

    assert caught.value.at == str(path)
    assert caught.value.fix

"""Names that every reader of a calibration cache gets right.

Readers split a row at `: `, some at every colon: a name that holds `: ` or a line break cannot
stand in a cache and is changed in the models too.

Reference: NVIDIA/TensorRT samples/common/sampleEngines.cpp `readScalesFromCalibrationCache`;
modelopt onnx/quantization/calib_utils.py; nvdla/sw umd/utils/calibdata/calib_txt_to_json.py.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.report import Report

__all__ = ["clean", "is_clean"]

_BREAKS: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def is_clean(name: str) -> bool:
    """Whether every reader of a cache takes `name` as it is, colons aside."""
    return bool(name) and name == name.strip() and ": " not in name and not _BREAKS.search(name)


def _cleaned(name: str) -> str:
    return _BREAKS.sub("_", name.replace(": ", ":_")).strip() or "tensor"


def clean(model: ir.Model, report: Report) -> dict[str, str]:
    """Give every tensor of `model` a name that can stand in a cache.

    Returns:
        Network input or output → its new name, where it has one.
    """
    graph = model.graph
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    taken = {str(value.name) for value in values} | set(graph.initializers)
    renamed: dict[str, str] = {}
    ends: dict[str, str] = {}
    for value in values:
        old = str(value.name)
        if not value.name or is_clean(old):
            continue
        new, count = _cleaned(old), 0
        while new in taken:
            count += 1
            new = f"{_cleaned(old)}_{count}"
        taken.add(new)
        value.name = renamed[old] = new
        if value.is_graph_input() or value.is_graph_output():
            ends[old] = new
    if renamed:
        told = ", ".join(f"{old!r} is {new!r}" for old, new in list(renamed.items())[:4])
        more = ", ..." if len(renamed) > 4 else ""
        report.warn(f"{len(renamed)} names cannot stand in a calibration cache: {told}{more}")
    return ends

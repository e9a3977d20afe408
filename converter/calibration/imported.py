"""Encodings from a file: qconvert's own, or what another tool found.

Foreign files hold less than a plan needs. TensorRT caches and range files have one number per
activation: weights get their largest magnitude per channel, as TensorRT gives them. ncnn tables
have scales per layer: the input's and the weight's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.calibration import weights
from qconvert.calibration.methods.table import parameters
from qconvert.content import parse_json, read_text
from qconvert.errors import CalibrationError
from qconvert.formats import ncnn_table, range_json, tensorrt_cache
from qconvert.formats.encodings import FORMAT, read_encodings
from qconvert.quant import Encodings, QParams, code_range

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.calibration.settings import Settings
    from qconvert.plan import Plan, PlannedLayer
    from qconvert.quant import F32
    from qconvert.report import Report

__all__ = ["load"]

_MOVING: Final = frozenset(
    ("DepthToSpace", "Dropout", "Flatten", "Identity", "Reshape", "SpaceToDepth", "Squeeze",
     "Transpose", "Unsqueeze")
)  # fmt: skip
"""What comes out is what went in."""
_PASSING: Final = _MOVING | {"Clip", "MaxPool", "Pad", "Relu"}
"""What comes out is at most as large as what went in."""

_LEAST: Final = 2.0**-100
"""Scales from here to its reciprocal have products that float32 holds."""


def load(path: Path, model: ir.Model, plan: Plan, settings: Settings, report: Report) -> Encodings:
    """Read encodings of any known kind and complete them for a plan.

    Args:
        path: qconvert's JSON, an ncnn `.table`, a TensorRT calibration cache, or the range JSON
            of PPQ, MQBench, qdq-translator or NVDLA. Told apart by content.
        model: The optimized float model.
        plan: What will be quantized.
        settings: For weights that the file says nothing about.
        report: Is told what was filled in.

    Returns:
        Encodings; complete for the plan unless the file is qconvert's own.

    Raises:
        ModelFormatError: If the file is missing, damaged or of no known kind.
        CalibrationError: If it does not cover the plan; names everything that is missing.
    """
    text = read_text(path, "the encodings file")
    origin = str(path)
    if text.lstrip()[:1] == "{":
        document = parse_json(text, path, "the encodings file")
        if document.get("format") == FORMAT:
            return read_encodings(path, report)
        return _from_ranges(
            range_json.parse(document, origin=origin), model, plan, settings, report
        )
    if tensorrt_cache.looks_like(text):
        scales = tensorrt_cache.parse(text, origin=origin).scales
        ranges = {name: 127.0 * scale for name, scale in scales.items()}
        return _from_ranges(ranges, model, plan, settings, report)
    return _from_table(ncnn_table.parse(text, origin=origin), model, plan, settings, report)


def _from_ranges(
    ranges: Mapping[str, float], model: ir.Model, plan: Plan, settings: Settings, report: Report
) -> Encodings:
    """Encodings from the largest magnitude of each activation."""
    found = _completed(ranges, model)
    _require_all("activations", plan.activations, found)
    _warn_unmatched(ranges, model, report)
    chosen = {
        name: parameters((-found[name], found[name]), spec)
        for name, spec in plan.scaled.items()
        if name in found
    }
    return Encodings(
        _with_fixed(chosen, plan),
        weights.find(model, plan, replace(settings, method="minmax"), report),
    )


def _completed(ranges: Mapping[str, float], model: ir.Model) -> dict[str, float]:
    """Ranges of all values of `model` that the file tells something about.

    A value without one takes that of the value it was moved or cut from, or, where numbers were
    moved only, that of the value it became.
    """
    found = {str(value.name): ranges.get(str(value.name)) for value in model.graph.inputs}
    for node in model.graph:
        before = node.inputs[0] if node.op_type in _PASSING and not node.domain else None
        for value in node.outputs:
            name = str(value.name)
            found[name] = ranges.get(name, None if before is None else found.get(str(before.name)))
    for node in reversed(list(model.graph)):
        before = node.inputs[0] if node.op_type in _MOVING and not node.domain else None
        if before is not None and found.get(str(before.name), 0.0) is None:
            found[str(before.name)] = found[str(node.outputs[0].name)]
    return {name: limit for name, limit in found.items() if limit is not None}


def _warn_unmatched(ranges: Mapping[str, float], model: ir.Model, report: Report) -> None:
    """List what the file says about tensors that the model does not have."""
    names = {str(value.name) for value in model.graph.inputs}
    names.update(str(value.name) for node in model.graph for value in node.outputs)
    unmatched = [name for name in ranges if name not in names]
    if unmatched:
        report.warn(
            f"{len(unmatched)} of {len(ranges)} ranges belong to no tensor of the model: "
            f"{', '.join(unmatched)}"
        )


def _from_table(
    table: ncnn_table.Table, model: ir.Model, plan: Plan, settings: Settings, report: Report
) -> Encodings:
    """Encodings from an ncnn table; its scales are reciprocals of ours."""
    inputs = {row.layer: row.scales for row in table.rows if not row.is_weight}
    weight_rows = {row.layer: row.scales for row in table.rows if row.is_weight}
    _require_all("layers", [layer.node for layer in plan.layers], inputs)
    scales: dict[str, float] = {}
    for layer in plan.layers:
        scale = _reciprocal(layer.node, inputs[layer.node])
        if scales.setdefault(layer.input, scale) != scale:
            report.warn(
                f"the table has different scales for '{layer.input}', which several layers read; "
                "the wider range is used"
            )
            scales[layer.input] = max(scale, scales[layer.input])
    _require_all("activations", plan.activations, scales)
    made = {}
    for name, spec in plan.activations.items():
        top = code_range(spec.bits)[1]
        made[name] = parameters((-top * scales[name], top * scales[name]), spec)
    found = weights.find(model, plan, replace(settings, method="minmax"), report)
    for layer in plan.layers:
        if layer.weight is not None and layer.node in weight_rows and not layer.log2:
            found[layer.weight] = _table_weight(
                layer, found[layer.weight], np.array(weight_rows[layer.node], np.float64)
            )
    return Encodings(_with_fixed(made, plan), found)


def _reciprocal(layer: str, scales: tuple[float, ...]) -> float:
    """Our scale of a layer's input."""
    if len(scales) != 1 or not _LEAST <= scales[0] <= 1 / _LEAST:
        raise CalibrationError(
            f"the input scale of '{layer}' in the table is {' '.join(map(str, scales)) or 'empty'}",
            why=f"it is one number from {_LEAST:.1g} to {1 / _LEAST:.1g}",
            fix="the table is damaged: calibrate again",
        )
    return 1.0 / scales[0]


def _table_weight(
    layer: PlannedLayer, largest: QParams, scales: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> QParams:
    """Parameters of a weight with the table's scales: per channel, per group, or one for all."""
    count = largest.scale.size
    if len(scales) not in {1, count} and (len(scales) != layer.groups or count % layer.groups):
        raise CalibrationError(
            f"the table has {len(scales)} weight scales for '{layer.node}'",
            why=f"the layer has {count} output channels",
            fix="the table belongs to another model",
        )
    each = np.repeat(scales, count // len(scales)) if len(scales) < count else scales
    # A dead channel stands as inf or 0 in ncnn2table's output: it keeps its own scale.
    alive = (each >= _LEAST) & (each <= 1 / _LEAST)
    ours: F32 = np.where(alive, 1.0 / np.where(alive, each, 1.0), largest.scale).astype(np.float32)
    return replace(largest, scale=ours.reshape(largest.scale.shape))


def _with_fixed(found: Mapping[str, QParams], plan: Plan) -> dict[str, QParams]:
    """`found`, but for scales that the user fixed."""
    result = dict(found)
    for name, spec in plan.activations.items():
        if spec.fixed_scale is not None:
            result[name] = replace(found[name], scale=np.asarray(spec.fixed_scale, np.float32))
    return result


def _require_all(
    kind: str, wanted: Mapping[str, object] | list[str], has: Mapping[str, object]
) -> None:
    """Refuse a file that lacks something."""
    missing = [name for name in wanted if name not in has]
    if missing:
        raise CalibrationError(
            f"the encodings have nothing for {len(missing)} {kind}",
            at=", ".join(missing),
            why="the file was made for another model, or these were left out of it",
            fix="keep the layers in float (--float NAME), or calibrate again",
        )

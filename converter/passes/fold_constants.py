"""Compute what is known before the network runs.

A node whose inputs are all constants has constant outputs, and because every shape is known, so
has Shape. onnxruntime computes them, all in one run, so that they are what the network would have
computed. Q/DQ nodes stay: a dequantized weight is a quantization, not a constant.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from typing_extensions import override

from qconvert.errors import ModelFormatError, VerificationError
from qconvert.graph import constant, is_output
from qconvert.passes.rewrite import add_initializer
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs

if TYPE_CHECKING:
    from qconvert.report import Report

__all__ = ["FoldConstants"]

_STEP: Final = "fold_constants"

_NEVER: Final = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
    }
)

_LIMIT: Final = 1 << 26
"""Bytes a folded constant may have when it is larger than what it is made of (64 MiB)."""


def _bytes(value: ir.Value) -> float:
    """The size of `value`; infinite when its shape or type is not known."""
    shape, dtype = value.shape, value.dtype
    if shape is None or dtype is None or not all(isinstance(dim, int) for dim in shape):
        return math.inf
    return math.prod(int(dim) for dim in shape.numpy()) * dtype.itemsize


def _computable(node: ir.Node, known: set[ir.Value]) -> bool:
    """Whether onnxruntime may compute `node` now."""
    if node.domain or node.op_type in _NEVER or not node.outputs:
        return False
    if any(
        attr.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
        for attr in node.attributes.values()
    ):
        return False
    inputs = [value for value in node.inputs if value is not None]
    if not all(value in known or constant(value) is not None for value in inputs):
        return False
    allowed = max(_LIMIT, sum(_bytes(value) for value in inputs))
    return all(_bytes(output) <= allowed for output in node.outputs)


class FoldConstants(ir.passes.InPlacePass):
    """Replace every value that does not depend on the network's inputs by an initializer."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    @override
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        # A computed shape gives other values their shapes, and those make more constants.
        while self._fold_shapes(model) | self._fold_nodes(model):
            modified = True
            common.RemoveUnusedNodesPass()(model)
            common.ShapeInferencePass()(model)
        return ir.passes.PassResult(model, modified=modified)

    def _fold_nodes(self, model: ir.Model) -> bool:
        """Replace what the constant nodes that others read compute."""
        known: set[ir.Value] = set()
        for node in model.graph:
            if _computable(node, known):
                known.update(node.outputs)
        wanted = sorted((v for v in known if _leaves(v, known)), key=lambda v: str(v.name))
        return bool(wanted) and self._compute(model, wanted)

    def _fold_shapes(self, model: ir.Model) -> bool:
        """Replace Shape and Size by the numbers they give."""
        modified = False
        for node in tuple(model.graph):
            if node.domain or node.op_type not in {"Shape", "Size"} or node.inputs[0] is None:
                continue
            if math.isinf(_bytes(node.inputs[0])) or is_output(node.outputs[0]):
                continue
            assert node.inputs[0].shape is not None
            dims = np.asarray(node.inputs[0].shape.numpy(), dtype=np.int64)
            if node.op_type == "Shape":
                end = node.attributes.get_int("end", dims.size)
                result = dims[node.attributes.get_int("start", 0) : end]
            else:
                result = np.asarray(dims.prod(), dtype=np.int64)
            self._replace(model.graph, node.outputs[0], result)
            model.graph.remove(node, safe=True)
            modified = True
        return modified

    def _compute(self, model: ir.Model, wanted: list[ir.Value]) -> bool:
        """Run the constant part of the graph and put the results in its place."""
        part = with_outputs(model, [str(value.name) for value in wanted])
        part.graph.inputs.clear()
        try:
            with OnnxRuntime(part, optimize=False, threads=1) as runtime:
                results = runtime.run({})
        except (ModelFormatError, VerificationError) as error:
            for value in wanted:
                self.report.kept(_STEP, str(value.name), f"{error.what}: {error.why}")
            return False
        for value in wanted:
            self._replace(model.graph, value, results[str(value.name)])
        return True

    def _replace(self, graph: ir.Graph, value: ir.Value, array: np.ndarray) -> None:
        """Let `array` stand for `value`, under its name."""
        name = str(value.name)
        self.report.did(_STEP, name)
        value.name = None
        value.replace_all_uses_with(add_initializer(graph, name, array))


def _leaves(value: ir.Value, known: set[ir.Value]) -> bool:
    """Whether a node that cannot be computed now reads `value`."""
    if is_output(value):
        return False
    return any(not (reader.outputs and reader.outputs[0] in known) for reader in value.consumers())

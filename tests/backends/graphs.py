"""Graphs of the intermediate representation, from text."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common


def model_of(body: str, **weights: np.ndarray | np.generic) -> ir.Model:
    """A valid model from the text of a graph and its initializers."""
    text = f'<ir_version: 10, opset_import: ["" : 21]>\n{body}'
    # The reader of ONNX text warns of inputs it has not seen yet: initializers come after.
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    model = ir.from_onnx_text(
        text, [ir.tensor(np.asarray(array), name=name) for name, array in weights.items()]
    )
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        value.shape = ir.Shape(value.const_value.shape.numpy())
        value.dtype = value.const_value.dtype
    for index, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type.lower()}_{index}"
    common.ShapeInferencePass()(model)
    common.CheckerPass()(model)
    return model

"""Gather of rows of a table by an input: Embed, which reads the input's bits as int32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.backends.ncnn.net import Integers
from qconvert.backends.ncnn.ops.conv import int8_codes
from qconvert.backends.ncnn.registry import Refusal
from qconvert.graph import index_rows

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context
    from qconvert.backends.ncnn.net import Draft, Weight
    from qconvert.formats.ncnn_param import Param
    from qconvert.qdq import Codes

__all__ = ["embed"]


def embed(ctx: Context, node: ir.Node) -> None:
    """Table [V, E], indices [1, S] → [1, S, E]; integers when the table comes as codes.

    Raises:
        Refusal: If the indices are no network input: nothing in ncnn makes integers of floats.
    """
    indices = node.inputs[1]
    cast = indices.producer() if indices is not None else None
    if cast is None or index_rows(cast.inputs[0]) is None:
        raise Refusal("its indices are computed at run time; ncnn has no integers but as inputs")
    table = ctx.weights(node.inputs[0], "table")
    blob = ctx.blob(indices)
    if table.ndim != 2 or len(blob.shape) != 1:
        raise Refusal("ncnn's Embed takes one row of indices and a table of two axes")
    rows, width = table.shape
    params: dict[int, Param] = {0: width, 1: rows, 3: table.size}
    weights: dict[str, Weight] = {"weight": table}
    draft = ctx.draft("Embed", [blob], params, shapes=[(blob.size, width)], weights=weights)
    codes = int8_codes(node.inputs[0])
    if codes is not None:
        _integers(draft, codes)
    ctx.bind(node.outputs[0], draft.output)


def _integers(draft: Draft, codes: Codes) -> None:
    """The table as codes, where one scale holds for all of it."""
    if codes.params.axis is not None or (codes.codes == -128).any():
        draft.details["float"] = "ncnn has int8 tables of one scale"
        return
    scale = codes.params.scale.reshape(1)
    draft.weights = {
        "weight": codes.codes.astype(np.int8),
        "weight_scale": (1.0 / scale).astype(np.float32),
    }
    draft.params[18] = 2
    draft.integers = Integers(scale, 0.0, bits=codes.params.bits)

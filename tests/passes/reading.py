"""What stands in a graph: its operators, and what its Q/DQ nodes say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qconvert.graph import is_output
from qconvert.passes.read_qdq import weight_name
from qconvert.qdq import codes_of, pair_of
from qconvert.quant import Encodings

if TYPE_CHECKING:
    import onnx_ir as ir


def encodings_of(model: ir.Model) -> Encodings:
    """The scales a quantized model brings along, by the names calibration would use.

    Returns:
        `activations` by the name of the float value (of the output, where one is quantized),
        `weights` and their codes as `rounded` by the name of the float weight.
    """
    encodings = Encodings()
    for node in model.graph:
        for output in node.outputs:
            pair, codes = pair_of(output), codes_of(output)
            if pair is not None:
                named = output if is_output(output) else pair.source
                encodings.activations[str(named.name)] = pair.params
            elif codes is not None:
                encodings.weights[weight_name(codes)] = codes.params
                encodings.rounded[weight_name(codes)] = codes.codes
    return encodings


def kinds(model: ir.Model) -> list[str]:
    """Its operators in order."""
    return [node.op_type for node in model.graph]

"""Put biases on the grid of their products, as targets that add integers do.

    b  →  s_x s_w round(b / (s_x s_w))

A bias that stays real differs by up to half a product from what hardware adds, which moves one
code in some thousand; the simulation is to do as the hardware does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.graph import constant
from qconvert.passes.linear import LINEAR, channels
from qconvert.passes.rewrite import set_constant
from qconvert.qdq import codes_of, pair_of

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

__all__ = ["round_biases"]

_LARGEST: Final = 2.0**31


def round_biases(model: ir.Model) -> None:
    """Round the bias of every quantized layer of `model` in place.

    A bias that would not fit into 32 bits stays as it is: its layer hardly looks at its input.
    """
    for node in model.graph:
        if node.op_type not in LINEAR or node.domain or len(node.inputs) < 3:
            continue
        bias, unit = constant(node.inputs[2]), _product_scale(node)
        if bias is None or unit is None or unit.size not in (1, bias.size):
            continue
        codes = np.rint(bias.astype(np.float64) / unit)
        if bias.size == channels(node):
            rounded = np.where(np.abs(codes) < _LARGEST, codes * unit, bias)
            set_constant(node, 2, rounded.astype(np.float32), "bias")


def _product_scale(node: ir.Node) -> npt.NDArray[np.float64] | None:
    """Scale of the products of a layer, [] or [channels]; None when it is not quantized."""
    pair, codes = pair_of(node.inputs[0]), codes_of(node.inputs[1])
    if pair is None or codes is None:
        return None
    scale = codes.params.scale.astype(np.float64)
    if codes.params.log2:
        scale = scale * 2.0 ** (2 - 2 ** (codes.params.bits - 1))
    return np.asarray(float(pair.params.scale) * scale)

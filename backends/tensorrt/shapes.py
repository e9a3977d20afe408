"""Convolutions that TensorRT has integer kernels for.

Reference: NVIDIA/TensorRT-Model-Optimizer, modelopt/onnx/quantization/graph_utils.py
`find_nodes_from_convs_to_exclude` (0.47.0), which knows them from the kernels themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qconvert.backends.tensorrt.sameness import source_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["why_no_kernel"]

_WIDE: Final = 16
"""Channels from which on every convolution has an integer kernel."""


def why_no_kernel(node: ir.Node, shape: tuple[int, ...]) -> str | None:
    """Why TensorRT has no int8 kernel for a layer; None when it has.

    Args:
        node: Conv, ConvTranspose, Gemm or MatMul.
        shape: Of its weight.
    """
    groups = node.attributes.get_int("group", 1)
    if node.op_type == "ConvTranspose":
        return "TensorRT has no int8 kernel for a grouped deconvolution" if groups > 1 else None
    if node.op_type == "Gemm":  # is written as a 1x1 convolution
        turned = node.attributes.get_int("transB", 0) == 0
        shape = (*(shape[::-1] if turned else shape), 1, 1)
    elif node.op_type != "Conv":
        return None
    if not 3 <= len(shape) <= 5:
        return f"TensorRT has no int8 kernel for a convolution over {len(shape) - 2} dimensions"
    outputs, inputs, kernel = shape[0], shape[1], shape[2:]
    if outputs >= _WIDE and inputs >= _WIDE:
        return None
    return _why_not_grouped(outputs, kernel) if groups > 1 else _why_not_narrow(node, shape)


def _why_not_grouped(outputs: int, kernel: tuple[int, ...]) -> str | None:
    """The conditions for groups of few channels, depthwise convolutions above all."""
    if outputs % 8:
        return f"TensorRT has no int8 kernel for a grouped convolution to {outputs} channels"
    if min(kernel) < 3:
        size = "x".join(map(str, kernel))
        return f"TensorRT has no int8 kernel for a grouped {size} convolution"
    return None


def _why_not_narrow(node: ir.Node, shape: tuple[int, ...]) -> str | None:
    """The conditions for a plain convolution from or to few channels."""
    outputs, inputs, kernel = shape[0], shape[1], shape[2:]
    between = f"from {inputs} to {outputs} channels"
    if outputs % 8 and inputs % 8:
        return f"TensorRT has no int8 kernel for a convolution {between}: neither divides by 8"
    source = source_of(node.inputs[0])
    first = source is not None and source.is_graph_input()
    if not first and max(outputs, inputs) < _WIDE:
        return f"TensorRT has no int8 kernel for a convolution {between} inside a network"
    if len(set(kernel)) != 1:
        size = "x".join(map(str, kernel))
        return f"TensorRT has no int8 kernel for a {size} convolution {between}"
    return None

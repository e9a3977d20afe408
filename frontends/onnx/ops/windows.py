"""Convolution and pooling: `auto_pad` and the kernel's size made explicit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qconvert.frontends.onnx.registry import Refused, converts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from qconvert.frontends.onnx.call import Call

__all__ = ["convolution", "explicit_window"]


@converts("MaxPool", "AveragePool", "LpPool")
def _pool(call: Call) -> Sequence[ir.Value]:
    """Pooling with explicit pads."""
    return call.emit(
        call.inputs, explicit_window(call, call.shape(0)[2:], call.get("kernel_shape"))
    )


@converts("Conv")
def convolution(call: Call) -> Sequence[ir.Value]:
    """Convolution with explicit pads; the kernel's size is the weight's."""
    return call.emit(call.inputs, explicit_window(call, call.shape(0)[2:], call.shape(1)[2:]))


def explicit_window(call: Call, spatial: Sequence[int], kernel: Sequence[int]) -> dict[str, Any]:
    """The attributes of a window operator with `kernel_shape`, `strides`, `pads` spelled out.

    Args:
        call: The node.
        spatial: Its input's spatial size.
        kernel: The window's size.

    Raises:
        Refused: If the window does not fit the input's rank, or moves by less than 1.
    """
    rank = len(spatial)
    strides = list(call.get("strides", [1] * rank))
    dilations = list(call.get("dilations", [1] * rank))
    kernel = [int(size) for size in kernel]
    if not len(kernel) == len(strides) == len(dilations) == rank or rank == 0:
        raise Refused(f"its window has not the {rank} spatial axes of its input")
    if min(*kernel, *strides, *dilations) < 1:
        raise Refused("its window, stride or dilation is below 1")
    attributes = call.plain("auto_pad", "pads", "strides", "kernel_shape")
    mode = call.get("auto_pad", "NOTSET")
    if mode in {"SAME_UPPER", "SAME_LOWER"}:
        pads = _same(spatial, kernel, strides, dilations, upper=mode == "SAME_UPPER")
    else:
        pads = list(call.get("pads", [])) if mode == "NOTSET" else []
    if mode != "NOTSET" and call.get("ceil_mode", 0):
        attributes.pop("ceil_mode")  # auto_pad fixes the output size
    pads = pads or [0] * (2 * rank)
    return {**attributes, "kernel_shape": kernel, "strides": strides, "pads": pads}


def _same(
    spatial: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    upper: bool,
) -> list[int]:
    """Pads for which the output has ceil(input / stride) positions.

    The odd one goes to the end with SAME_UPPER (ONNX operator specification, Conv).
    """
    begins, ends = [], []
    for size, k, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
        positions = -(-size // stride)
        total = max((positions - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    return begins + ends


@converts("ConvTranspose")
def _conv_transpose(call: Call) -> Sequence[ir.Value]:
    """ConvTranspose with pads instead of `auto_pad` or `output_shape`."""
    spatial, kernel = call.shape(0)[2:], list(call.shape(1)[2:])
    rank = len(spatial)
    strides = list(call.get("strides", [1] * rank))
    dilations = list(call.get("dilations", [1] * rank))
    extra = list(call.get("output_padding", [0] * rank)) or [0] * rank
    if not len(kernel) == len(strides) == len(dilations) == len(extra) == rank or rank == 0:
        raise Refused(f"its window has not the {rank} spatial axes of its input")
    full = [
        (size - 1) * stride + (k - 1) * dilation + 1 + more
        for size, k, stride, dilation, more in zip(
            spatial, kernel, strides, dilations, extra, strict=True
        )
    ]
    attributes = call.plain("auto_pad", "output_shape", "pads", "strides", "kernel_shape")
    pads, more = _transposed_pads(call, full, spatial, strides)
    if any(more):
        attributes["output_padding"] = [a + b for a, b in zip(extra, more, strict=True)]
    return call.emit(
        call.inputs, {**attributes, "kernel_shape": kernel, "strides": strides, "pads": pads}
    )


def _transposed_pads(
    call: Call, full: Sequence[int], spatial: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Pads that cut the full output down to what is asked for, and what must be added to it.

    The rule of the ONNX specification, ConvTranspose: the odd one goes to the end with
    SAME_UPPER, to the beginning otherwise.
    """
    mode = call.get("auto_pad", "NOTSET")
    wanted = list(call.get("output_shape", []))[-len(spatial) :]
    if not wanted and mode in {"SAME_UPPER", "SAME_LOWER"}:
        wanted = [size * stride for size, stride in zip(spatial, strides, strict=True)]
    if not wanted:
        given = list(call.get("pads", [])) if mode == "NOTSET" else []
        return given or [0] * (2 * len(spatial)), [0] * len(spatial)
    cuts = [have - want for have, want in zip(full, wanted, strict=True)]
    totals = [max(cut, 0) for cut in cuts]
    small = [total // 2 for total in totals]
    large = [total - total // 2 for total in totals]
    pads = small + large if mode == "SAME_UPPER" else large + small
    return pads, [max(-cut, 0) for cut in cuts]

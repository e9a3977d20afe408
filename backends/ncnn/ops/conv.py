"""Conv and ConvTranspose: Convolution, ConvolutionDepthWise, Deconvolution, and their 1D/3D kin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.backends.ncnn.geometry import Window, window_of
from qconvert.backends.ncnn.net import Integers
from qconvert.backends.ncnn.registry import Refusal, lowers
from qconvert.qdq import codes_of, pair_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context
    from qconvert.backends.ncnn.net import Draft, Shape, Weight
    from qconvert.formats.ncnn_param import Param
    from qconvert.qdq import Codes, Pair

# Parameter ids by spatial axis (outermost first), for 1, 2 and 3 spatial axes:
# kernel, dilation, stride, pad in front, pad behind.
_IDS: Final[dict[int, tuple[tuple[int, int, int, int, int], ...]]] = {
    1: ((1, 2, 3, 4, 15),),
    2: ((11, 12, 13, 14, 16), (1, 2, 3, 4, 15)),
    3: ((21, 22, 23, 24, 17), (11, 12, 13, 14, 16), (1, 2, 3, 4, 15)),
}


def geometry_params(window: Window) -> dict[int, Param]:
    """Kernel, dilation, stride and pads; what equals ncnn's default is left out."""
    params: dict[int, Param] = {}
    rank = len(window.kernel)
    columns = (window.kernel, window.dilations, window.strides, window.begin, window.end)
    for axis in reversed(range(rank)):
        for column, key in zip(columns, _IDS[rank][axis], strict=True):
            params[key] = column[axis]
    return _without_defaults(params)


def _without_defaults(params: dict[int, Param]) -> dict[int, Param]:
    """Drop what ncnn fills in: height as width, right as left, bottom as top, 1 and 0."""
    follows = {11: 1, 12: 2, 13: 3, 14: 4, 15: 4, 16: 14, 21: 1, 22: 2, 23: 3, 24: 4, 17: 24}
    constants = {2: 1, 3: 1, 4: 0}
    return {
        key: value
        for key, value in params.items()
        if not (key in follows and value == params.get(follows[key]))
        and not (key in constants and value == constants[key])
    }


@lowers("Conv", to="Convolution, ConvolutionDepthWise (1D, 2D, 3D)")
def _conv(ctx: Context, node: ir.Node) -> None:
    """Conv, x [1, I, ...], w [O, I/G, ...], b [O]; integers when Q/DQ nodes say so."""
    x, w = node.inputs[0], node.inputs[1]
    shape = ctx.batch(x)
    weight = ctx.weights(w, "weight")
    rank = weight.ndim - 2
    if not 1 <= rank <= 3:
        raise Refusal(f"it has {rank} spatial axes")
    group = node.attributes.get_int("group", 1)
    out = ctx.batch(node.outputs[0])
    window = window_of(node, weight.shape[2:], shape[2:], out[2:])
    depthwise = "DepthWise" if group > 1 else ""
    suffix = {1: "1D", 2: "", 3: "3D"}[rank]
    params: dict[int, Param] = {0: weight.shape[0], 6: weight.size, **geometry_params(window)}
    if group > 1:
        params[7] = group
    weights: dict[str, Weight] = {"weight": weight}
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        params[5] = 1
        weights["bias"] = ctx.weights(bias, "bias").reshape(-1)
    integers = None
    if rank == 2:
        integers = integers_of(x, int8_codes(w), weight.shape[0], axis=0)
    source, record = x, None
    if integers is not None:
        source, record, codes = integers
        weights["weight"] = codes
    draft = ctx.draft(
        f"Convolution{depthwise}{suffix}",
        [ctx.blob(source)],
        params,
        shapes=[out[1:]],
        weights=weights,
    )
    draft.integers = record
    _note_float(draft, x, w, rank=rank)
    ctx.bind(node.outputs[0], draft.output)


def int8_codes(w: ir.Value | None) -> Codes | None:
    """The codes of a weight that ncnn could hold: int8 without a zero point."""
    codes = codes_of(w)
    if codes is None or codes.codes.dtype != np.int8 or codes.params.log2:
        return None
    return None if codes.params.zero_point.any() else codes


def integers_of(
    x: ir.Value | None, codes: Codes | None, channels: int, *, axis: int
) -> tuple[ir.Value, Integers, np.ndarray[tuple[int, ...], np.dtype[np.int8]]] | None:
    """The float input, the scales and the codes of a layer whose Q/DQ nodes ncnn can run.

    Args:
        x: The layer's input.
        codes: Its weight.
        channels: Output channels.
        axis: Output-channel axis of the weight.

    Returns:
        None when the layer has to stay float: nothing is quantized, the input has a zero point or
        more than 8 bits, or the weight has scales along another axis.
    """
    pair = pair_of(x)
    if pair is None or codes is None or why_float(pair, codes, axis=axis):
        return None
    low, high = pair.limits
    scales = np.broadcast_to(codes.params.scale, (channels,)).astype(np.float32)
    record = Integers(
        scales,
        float(pair.params.scale),
        bits=codes.params.bits,
        low=max(low, -127),
        high=high,
    )
    return pair.source, record, codes.codes


def why_float(pair: Pair | None, codes: Codes | None, *, axis: int) -> str | None:
    """Why a layer with Q/DQ nodes around it runs in float on ncnn; None when it need not."""
    if pair is None:
        return "its input is not quantized"
    if codes is None:
        return "its weight is not stored as int8 without a zero point"
    zero_point, (low, high) = int(pair.params.zero_point), pair.limits
    reasons = (
        (zero_point != 0, f"its input has zero point {zero_point}, ncnn's codes have none"),
        (
            not -128 <= low <= high <= 127,
            f"its input has codes {low} to {high}, ncnn's are int8",
        ),
        (
            codes.params.axis not in {None, axis},
            f"its weight has scales along axis {codes.params.axis}",
        ),
        (bool((codes.codes == -128).any()), "its weight holds code -128, ncnn's go from -127"),
    )
    return next((text for holds, text in reasons if holds), None)


def _note_float(draft: Draft, x: ir.Value | None, w: ir.Value | None, *, rank: int) -> None:
    """Say why a quantized convolution runs in float."""
    pair, codes = pair_of(x), int8_codes(w)
    if draft.integers is None and (pair is not None or codes is not None):
        why = why_float(pair, codes, axis=0)
        draft.details["float"] = why or f"ncnn has no integer convolution with {rank} axes"


@lowers("ConvTranspose", to="Deconvolution, DeconvolutionDepthWise (1D, 2D, 3D)")
def _conv_transpose(ctx: Context, node: ir.Node) -> None:
    """ConvTranspose, x [1, I, ...], w [I, O/G, ...]; ncnn stores [G][O/G][I/G][...]."""
    x = node.inputs[0]
    shape, out = ctx.batch(x), ctx.batch(node.outputs[0])
    weight = ctx.weights(node.inputs[1], "weight")
    rank = weight.ndim - 2
    if not 1 <= rank <= 3:
        raise Refusal(f"it has {rank} spatial axes")
    group = node.attributes.get_int("group", 1)
    window, extra = _transposed_window(node, weight.shape[2:], shape[2:], out[2:])
    inputs, outputs = weight.shape[:2]
    grouped = weight.reshape(group, inputs // group, outputs, *weight.shape[2:])
    stored = np.ascontiguousarray(np.swapaxes(grouped, 1, 2))
    params: dict[int, Param] = {0: group * outputs, 6: weight.size, **geometry_params(window)}
    if any(extra):
        params.update(zip((18, 19, 20), reversed(extra), strict=False))
    if group > 1:
        params[7] = group
    weights: dict[str, Weight] = {"weight": stored}
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        params[5] = 1
        weights["bias"] = ctx.weights(node.inputs[2], "bias").reshape(-1)
    kind = "Deconvolution" + ("DepthWise" if group > 1 else "") + {1: "1D", 2: "", 3: "3D"}[rank]
    result = ctx.layer(kind, [ctx.blob(x)], params, shape=out[1:], weights=weights)
    ctx.bind(node.outputs[0], result)


def _transposed_window(
    node: ir.Node, kernel: Shape, spatial: Shape, output: Shape
) -> tuple[Window, tuple[int, ...]]:
    """Geometry and output padding that give exactly `output`.

    out = (in - 1) * stride + dilation * (kernel - 1) + 1 - pads + output_padding
    """
    rank = len(kernel)
    plain = window_of(node, kernel, spatial, (1,) * rank)
    begin, end, extra = list(plain.begin), list(plain.end), [0] * rank
    explicit = node.attributes.get_ints("output_shape", ()) or ()
    auto = (node.attributes.get_string("auto_pad", "NOTSET") or "NOTSET").startswith("SAME")
    pads = node.attributes.get_ints("pads", ()) or (0,) * (2 * rank)
    for axis in range(rank):
        full = (spatial[axis] - 1) * plain.strides[axis] + plain.extent[axis]
        if explicit or auto:
            wanted_extra = node.attributes.get_ints("output_padding", ()) or (0,) * rank
            total = max(full + wanted_extra[axis] - output[axis], 0)
            half = total // 2
            upper = node.attributes.get_string("auto_pad", "") == "SAME_UPPER"
            begin[axis] = half if upper else total - half
            end[axis] = total - begin[axis]
        else:
            begin[axis], end[axis] = int(pads[axis]), int(pads[rank + axis])
        extra[axis] = output[axis] - (full - begin[axis] - end[axis])
    if min(*begin, *end, *extra) < 0:
        raise Refusal("its padding is negative")
    window = Window(plain.kernel, plain.strides, plain.dilations, tuple(begin), tuple(end))
    return window, tuple(extra)

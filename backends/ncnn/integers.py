"""INT8 layers: which kernels are safe, chains that stay int8, and ncnn's own parameters.

Three things in stock ncnn an exporter has to know (verified on ncnn 1.0.20261020, x86):

* 3x3 stride-1 convolutions use an integer Winograd transform whose sums end at 2^31 / 576: the
  result is exact if and only if every accumulator stays below `WINOGRAD_LIMIT`. The largest
  accumulator a layer can reach is (largest input code) * S, S = max over output channels of
  sum |weight code|. Above the bound the layer gets `31=64`, which turns Winograd off.
* A grouped convolution (1 < group < channels) with a multiple of 8 outputs per group gives
  garbage when it dequantizes; its requantizing variant does not. It is taken apart into one
  Convolution per group.
* A convolution may hand int8 to the next one (`8=101/102`) when *every* reader is an integer
  convolution with the same input scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.backends.ncnn.net import Blob, Draft
from qconvert.formats.ncnn_param import FEATURE_MASK
from qconvert.formats.ncnn_table import Table, can_hold, expected_counts

if TYPE_CHECKING:
    from qconvert.backends.ncnn.finish import Finished
    from qconvert.backends.ncnn.net import Links, Net

__all__ = [
    "WINOGRAD_LIMIT",
    "bound_winograd",
    "chain",
    "encode",
    "sum_abs_weights",
    "table_of",
    "take_groups_apart",
]

WINOGRAD_LIMIT: Final = 3_728_270
"""Accumulators below this survive ncnn's integer Winograd: 2^31 / 576, rounded down."""

NO_WINOGRAD: Final = 64
_INT16: Final = 32767
_KERNELS: Final = ("Convolution", "ConvolutionDepthWise")


def sum_abs_weights(layer: Draft) -> int:
    """S: the largest sum of |weight codes| over the inputs of one output channel."""
    codes = np.abs(layer.weights["weight"].astype(np.int64))
    return int(codes.reshape(layer.int(0), -1).sum(axis=1).max(initial=0))


def bound_winograd(net: Net) -> None:
    """Decide for every 3x3 stride-1 integer convolution whether Winograd is safe, and say so.

    Also states how many products of the widest codes an int16 accumulator holds.
    """
    for layer in net:
        if layer.calibrated is None:
            continue
        assert layer.integers is not None
        largest = max(-layer.integers.low, layer.integers.high) or 127
        codes = layer.weights["weight"].astype(np.int64)
        top = int(np.abs(codes).max(initial=0))
        total = sum_abs_weights(layer)
        layer.details["sum_abs_weights"] = total
        layer.details["largest_accumulator"] = total * largest
        if top:
            layer.details["products_in_int16"] = _INT16 // (top * largest)
        if _is_packed_depthwise(layer):
            layer.details["approximate"] = "x86 divides with a 12-bit reciprocal: up to 2.4e-4 off"
        if not _uses_winograd(layer):
            continue
        # Codes beyond the declared range do reach the kernel unless a Clip keeps them out.
        reach = 127 if layer.details.get("relaxed_range") else largest
        safe = total * reach < WINOGRAD_LIMIT
        layer.details["winograd"] = safe
        layer.details["why"] = (
            f"{total} * {reach} = {total * reach} is "
            f"{'below' if safe else 'not below'} {WINOGRAD_LIMIT}"
        )
        if not safe:
            layer.params[FEATURE_MASK] = layer.int(FEATURE_MASK) | NO_WINOGRAD


def _is_packed_depthwise(layer: Draft) -> bool:
    """Whether x86 runs a layer in its packed depthwise kernel, whose division is inexact."""
    group = layer.int(7, 1)
    return layer.kind == "ConvolutionDepthWise" and group == layer.int(0) and group % 8 == 0


def _uses_winograd(layer: Draft) -> bool:
    """Whether a stock kernel may choose Winograd: 3x3, stride 1, no dilation, not grouped."""
    return (
        layer.kind == "Convolution"
        and (layer.int(1), layer.int(11, layer.int(1))) == (3, 3)
        and (layer.int(2, 1), layer.int(12, layer.int(2, 1))) == (1, 1)
        and (layer.int(3, 1), layer.int(13, layer.int(3, 1))) == (1, 1)
    )


def chain(net: Net) -> None:
    """Let convolutions hand int8 to convolutions, where all readers agree on the scale."""
    links = net.links()
    for layer in net:
        if layer.integers is None or layer.kind not in _KERNELS or net.is_output(layer.output):
            continue
        scale = _common_scale(links, layer.output)
        if scale is None:
            layer.details["requantize"] = False
            continue
        layer.integers.output_scale = scale
        layer.details["requantize"] = True


def _common_scale(links: Links, blob: Blob) -> float | None:
    """The input scale of every reader of `blob`, when all are integer convolutions."""
    readers = links.readers(blob)
    if not readers or any(
        reader.integers is None or reader.kind not in _KERNELS for reader in readers
    ):
        return None
    scales = {reader.integers.input_scale for reader in readers if reader.integers is not None}
    return scales.pop() if len(scales) == 1 else None


def take_groups_apart(net: Net) -> None:
    """Split grouped integer convolutions that ncnn computes wrongly, or that need more scales.

    ncnn keeps one weight scale per group. Groups whose channels have scales of their own, and the
    geometry that stock kernels get wrong, become Slice → one Convolution per group → Concat.
    """
    for layer in net:
        if layer.integers is None or layer.kind != "ConvolutionDepthWise":
            continue
        group, outputs = layer.int(7, 1), layer.int(0)
        scales = layer.integers.weight_scales.reshape(group, outputs // group)
        if outputs == group and layer.input.shape[0] == group:
            continue
        equal = bool((scales == scales[:, :1]).all())
        risky = (outputs // group) % 8 == 0 and layer.integers.output_scale is None
        if equal and not risky:
            continue
        net.replace(layer, _apart(layer, group))


def _apart(layer: Draft, group: int) -> list[Draft]:
    """Slice, the convolutions of each group, Concat."""
    assert layer.integers is not None
    outputs = layer.int(0) // group
    channels = layer.input.shape[0] // group
    pieces = [Blob((channels, *layer.input.shape[1:])) for _ in range(group)]
    results = [Blob((outputs, *layer.output.shape[1:])) for _ in range(group)]
    sizes = (channels,) * group
    cut = Draft("Slice", f"{layer.name}/groups", [layer.input], pieces, {0: sizes, 1: 0})
    weight = layer.weights["weight"].reshape(group, -1)
    parts = []
    for index in range(group):
        params = {key: value for key, value in layer.params.items() if key != 7}
        params.update({0: outputs, 6: weight[index].size})
        channel = slice(index * outputs, (index + 1) * outputs)
        weights = {"weight": weight[index]}
        if "bias" in layer.weights:
            weights["bias"] = layer.weights["bias"][channel]
        part = Draft(
            "Convolution",
            f"{layer.name}/group_{index}",
            [pieces[index]],
            [results[index]],
            params,
            weights,
        )
        part.integers = type(layer.integers)(
            layer.integers.weight_scales[channel],
            layer.integers.input_scale,
            layer.integers.bits,
            layer.integers.low,
            layer.integers.high,
        )
        part.details.update(layer.details, group_of=layer.name)
        parts.append(part)
    join = Draft("Concat", f"{layer.name}/join", results, [layer.output], {0: 0})
    return [cut, *parts, join]


def encode(net: Net) -> None:
    """Write scales and `8=` into the layers: ncnn's scales are the reciprocals of ours."""
    for layer in net:
        record = layer.calibrated
        if record is None:
            continue
        scales = record.weight_scales
        if layer.kind == "ConvolutionDepthWise":
            scales = scales.reshape(layer.int(7, 1), -1)[:, 0]
        term = 1 if layer.kind == "ConvolutionDepthWise" else 2
        layer.weights["weight_scales"] = _reciprocal(scales)
        layer.weights["bottom_scale"] = _reciprocal(np.array([record.input_scale]))
        if record.output_scale is not None:
            layer.weights["top_scale"] = _reciprocal(np.array([record.output_scale]))
            term += 100
        layer.params[8] = term


def _reciprocal(
    scales: np.ndarray[tuple[int, ...], np.dtype[np.floating]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """1 / scales, finite."""
    inverse = 1.0 / scales.astype(np.float64)
    return np.minimum(inverse, float(np.finfo(np.float32).max)).astype(np.float32).reshape(-1)


def table_of(finished: Finished, float_finished: Finished) -> Table:
    """The calibration table of an integer network, for its float model.

    A layer is left out, both rows of it, when ncnn2int8 could not make the same of it: it has
    another kind in the float model, scales per channel where ncnn has one per group, or a name
    that cannot stand in a table.
    """
    kinds = {layer.name: layer for layer in float_finished.network.layers}
    weights: dict[str, list[float]] = {}
    inputs: dict[str, float] = {}
    for name, draft in finished.drafts:
        layer = kinds.get(name)
        if draft.integers is None or layer is None or layer.kind != draft.kind:
            continue
        if draft.calibrated is None:
            slots = ("weight_scale",) if draft.kind == "Embed" else ("xc_scales", "hc_scales")
            if can_hold(name):
                for number, slot in enumerate(slots):
                    weights[f"{name}_param_{number}"] = [float(s) for s in draft.weights[slot]]
            continue
        scales = draft.weights["weight_scales"]
        if not can_hold(name) or expected_counts(layer) != {"_param_0": scales.size}:
            continue
        weights[f"{name}_param_0"] = [float(scale) for scale in scales]
        inputs[name] = float(draft.weights["bottom_scale"][0])
    return Table.of(weights, inputs)

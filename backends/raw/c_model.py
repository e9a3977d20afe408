"""A program as C arrays, in the conventions of CMSIS-NN and TensorFlow Lite.

Weights are OHWI (1HWO in depthwise layers), maps NHWC; biases are without the zero point of the
input, which comes as an offset that is added to every code; multipliers are Q31 with the shift of
TensorFlow Lite, positive to the left:

    y = offset_y + ((bias + sum (x + offset_x) w) * mult * 2^(shift - 31), rounded)
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qconvert.backends.raw.placing import LINEAR, placings
from qconvert.formats.hardware.c_source import Array, Section
from qconvert.formats.hardware.order import Layout, Order
from qconvert.integer.sums import integers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.backends.raw.placing import Place
    from qconvert.integer.program import Codes, Layer, Program, Tensor
    from qconvert.integer.rounding import I64

__all__ = [
    "golden_rows",
    "golden_sections",
    "model_sections",
    "parameter_rows",
    "places",
    "q31",
]

_LAYOUT: Final = Layout("ohwi")
_DEPTHWISE: Final = Order.of("IHWO")
_Q31: Final = 31
_LARGEST_SHIFT: Final = 62
_OTHERS: Final = {"multiplier": "multiplier", "shift": "right_shift", "lut": "table"}
"""Parameters of layers without weights → end of the array's name."""
_LINEAR_NAMES: Final = {
    "weight": "weights",
    "bias": "biases",
    "multiplier": "output_mult",
    "shift": "output_shift",
}


def places(program: Program) -> dict[str, Place]:
    """Tensor id → its order in C."""
    found = placings(program, _LAYOUT)
    for layer in program.layers:
        if layer.op == "depthwise":
            key = layer.parameters["weight"]
            found[key] = replace(found[key], order=_DEPTHWISE)
    return found


def parameter_rows(program: Program) -> dict[str, dict[str, Any]]:
    """Tensor id → which array holds its codes just as they are, and in which order."""
    found, rows = places(program), {}
    for layer in program.layers:
        names = {"weight": "weights"} if layer.op in LINEAR else _OTHERS
        for part, end in names.items():
            tensor = program.parameter(layer, part)
            if tensor is not None:
                rows[tensor.id] = _row(f"{layer.id}_{end}", tensor, found[tensor.id])
    return rows


def golden_rows(
    program: Program, case: str, codes: Mapping[str, Codes]
) -> dict[str, dict[str, Any]]:
    """Tensor id → the array of its golden vector."""
    return {
        key: _row(f"golden_{case}_{key}", program.tensors[key], place)
        for key, place in places(program).items()
        if key in codes
    }


def _row(symbol: str, tensor: Tensor, place: Place) -> dict[str, Any]:
    """The keys of an array's entry in the manifest: a code is an element, as wide as its type."""
    width = 8 * np.dtype(tensor.dtype).itemsize
    return {"symbol": symbol, **place.describe(tensor), "word_bits": width}


def model_sections(program: Program) -> list[Section]:
    """The layers of a program, each with its macros and arrays."""
    found = places(program)
    numeric = program.numeric
    defines: list[tuple[str, int | str]] = [
        ("MODEL_ROUNDING", json.dumps(numeric.rounding)),
        ("MODEL_LAYERS", len(program.layers)),
    ]
    head = Section("An integer network: the conventions are those of CMSIS-NN.", defines)
    return [head, *(_section(program, layer, found) for layer in program.layers)]


def golden_sections(program: Program, case: str, codes: Mapping[str, Codes]) -> list[Section]:
    """The golden vectors of one case: input and output of every layer, maps as NHWC."""
    found = places(program)
    arrays = [
        Array(f"golden_{case}_{key}", _flat(codes[key], place), _noted(program.tensors[key], place))
        for key, place in found.items()
        if key in codes
    ]
    return [Section(f"Golden vectors: {case}.", (), arrays)]


def _section(program: Program, layer: Layer, found: Mapping[str, Place]) -> Section:
    """One layer."""
    attributes = json.dumps(dict(layer.attributes))
    title = (
        f"{layer.name}: {layer.op}\nreads {', '.join(layer.inputs)}; "
        f"writes {', '.join(layer.outputs)}\n{attributes}"
    )
    if layer.op == "float":
        return Section(f"{title}\nnot integer: runs in float")
    defines = [(f"{layer.id.upper()}_{name}", value) for name, value in _defines(program, layer)]
    if layer.op in LINEAR:
        return Section(title, defines, _linear_arrays(program, layer, found))
    arrays = []
    for part, end in _OTHERS.items():
        tensor = program.parameter(layer, part)
        if tensor is not None:
            assert tensor.values is not None
            place = found[tensor.id]
            note = _noted(tensor, place)
            arrays.append(Array(f"{layer.id}_{end}", _flat(tensor.values, place), note))
    return Section(title, defines, arrays)


def _defines(program: Program, layer: Layer) -> list[tuple[str, int | str]]:
    """The macros of a layer, without its name before them."""
    output = program.tensors[layer.outputs[0]]
    low, high = layer.clamp or (output.low, output.high)
    rows: list[tuple[str, int | str]] = [
        ("OUTPUT_OFFSET", output.zero_point),
        ("OUT_ACTIVATION_MIN", low),
        ("OUT_ACTIVATION_MAX", high),
    ]
    several = len(layer.inputs) > 1
    for index, key in enumerate(layer.inputs, 1):
        name = f"INPUT_{index}_OFFSET" if several else "INPUT_OFFSET"
        rows.append((name, -program.tensors[key].zero_point))
    return rows + (_geometry(program, layer) if layer.op in LINEAR else [])


def _geometry(program: Program, layer: Layer) -> list[tuple[str, int | str]]:
    """Sizes of a layer with weights; those of a fully connected layer are 1x1 maps."""
    source, output = program.tensors[layer.inputs[0]], program.tensors[layer.outputs[0]]
    weight = program.parameter(layer, "weight")
    assert weight is not None
    given = layer.attributes
    flat = layer.op == "fc"
    x = (1, weight.shape[1], 1, 1) if flat else source.shape
    y = (1, weight.shape[0], 1, 1) if flat else output.shape
    kernel, strides = given.get("kernel", (1, 1)), given.get("strides", (1, 1))
    dilations, pads = given.get("dilations", (1, 1)), given.get("pads", (0, 0, 0, 0))
    groups = int(given.get("groups", 1))
    rows: list[tuple[str, int | str]] = [
        ("IN_CH", x[1]), ("INPUT_H", x[2]), ("INPUT_W", x[3]),
        ("OUT_CH", y[1]), ("OUTPUT_H", y[2]), ("OUTPUT_W", y[3]),
        ("FILTER_Y", kernel[0]), ("FILTER_X", kernel[1]),
        ("STRIDE_Y", strides[0]), ("STRIDE_X", strides[1]),
        ("PAD_Y", pads[0]), ("PAD_X", pads[1]),
        ("DILATION_Y", dilations[0]), ("DILATION_X", dilations[1]),
        ("GROUPS", groups),
        ("PAD_VALUE", int(given.get("pad_value", source.zero_point))),
        ("WEIGHT_BITS", weight.bits), ("WEIGHT_IS_LOG2", int(weight.encoding == "log2")),
    ]  # fmt: skip
    if layer.op == "depthwise":
        rows.append(("CH_MULT", y[1] // groups))
    return rows


def _linear_arrays(program: Program, layer: Layer, found: Mapping[str, Place]) -> list[Array]:
    """Weights, biases, multipliers and shifts of a layer with weights."""
    weight, bias = program.parameter(layer, "weight"), program.parameter(layer, "bias")
    source = program.tensors[layer.inputs[0]]
    assert weight is not None
    assert weight.values is not None
    place = found[weight.id]
    sums = integers(weight).reshape(weight.shape[0], -1).sum(axis=1) * source.zero_point
    if bias is not None:
        assert bias.values is not None
        shift = int(layer.attributes.get("bias_shift", 0))
        sums = sums + (bias.values.astype(np.int64) << shift)
    arrays = [
        Array(f"{layer.id}_weights", _flat(weight.values, place), _noted(weight, place)),
        Array(f"{layer.id}_biases", _narrow(sums), "without the zero point of the input"),
    ]
    multiplier, shifts = (program.parameter(layer, part) for part in ("multiplier", "shift"))
    if multiplier is None or shifts is None:
        return arrays
    pair = [np.broadcast_to(_values(part), weight.shape[:1]) for part in (multiplier, shifts)]
    mult, left = q31(pair[0], pair[1], normal=program.numeric.rounding != "tflite_double")
    note = "y = offset + sum * mult * 2^(shift - 31)"
    return [
        *arrays,
        Array(f"{layer.id}_output_mult", mult, note),
        Array(f"{layer.id}_output_shift", left, "positive to the left"),
    ]


def q31(multiplier: I64, shift: I64, *, normal: bool = True) -> tuple[Codes, Codes]:
    """Multipliers in Q31 and shifts to the left, as TensorFlow Lite has them.

    M / 2^s is mult * 2^(left - 31) exactly, so that one rounding gives the same code. A factor of
    2^30 and above becomes 2^29: whatever it multiplies is beyond every clamp all the same.

    Args:
        multiplier: M >= 0; a power of two where it does not fit 31 bits.
        shift: s, 0..62.
        normal: Whether to set the highest bit of `mult`; not where each bit shifted counts, in
            two roundings.

    Returns:
        int32 mult, and int32 left, between -31 and 30.
    """
    pairs = [_q31(int(m), int(s), normal=normal) for m, s in zip(multiplier, shift, strict=True)]
    return np.array([m for m, _ in pairs], np.int32), np.array([s for _, s in pairs], np.int32)


def _q31(multiplier: int, right: int, *, normal: bool) -> tuple[int, int]:
    """One pair."""
    if multiplier == 0 or not normal:
        return multiplier, _Q31 - right
    up = min(_Q31 - multiplier.bit_length(), _LARGEST_SHIFT - right)
    if right + up < 1:
        return 1 << 30, _Q31 - 1
    return (multiplier << up if up >= 0 else multiplier >> -up), _Q31 - (right + up)


def _values(tensor: Tensor) -> I64:
    """The codes of a parameter, as int64."""
    assert tensor.values is not None
    return tensor.values.astype(np.int64).reshape(-1)


def _flat(codes: Codes, place: Place) -> Codes:
    """The codes of a tensor in one row, in their order."""
    return place.words(codes).reshape(-1)


def _narrow(values: I64) -> Codes:
    """Sums as int32 where they fit."""
    fits = not values.size or (values.min() >= -(2**31) and values.max() < 2**31)
    return values.astype(np.int32 if fits else np.int64)


def _noted(tensor: Tensor, place: Place) -> str:
    """What an array is."""
    return f"{tensor.name}: {place.axes} {list(place.shape)} in the order {place.order}"

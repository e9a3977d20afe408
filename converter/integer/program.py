"""An integer program: tensors of codes, and the layers that turn codes into codes.

    real = scale * (code - zero_point)

A program is everything that hardware needs to know about a network. Every layer reads and writes
whole tensors; what it computes, to the bit, is what `qconvert.integer.executor` does.

Operators and their `attributes` (sizes are pairs `[rows, columns]`, pads are
`[top, left, bottom, right]`), `parameters` in parentheses, `[]` where they may be missing:

    conv        kernel, strides, pads, dilations, groups, pad_value
                (weight OIHW, bias, [multiplier, shift])    acc = bias * 2^bias_shift + sum x w
    depthwise   the same, where every input channel has filters of its own (weight OIHW, I = 1)
    fc          (weight OI, bias, [multiplier, shift])      over the input as one row
    add         signs (multiplier [inputs], shift [1])      sum of +-(x_i - z_i) M_i
    mul         (multiplier [1], shift [1])                 (x_0 - z_0) (x_1 - z_1) M
    avg_pool    kernel, strides, pads, divisor (multiplier, shift)      sum of (x - z) M
    max_pool    kernel, strides, pads           padding never wins
    concat      axis ([multiplier, shift: one per input, where scales differ])
    requantize  (multiplier [1], shift [1])     (x - z) M: the same numbers on another grid
    clamp       copies within the clamp
    lut         base (lut [codes] or [channels, codes])     lut[x - base]
    resize      scales, or rows and columns: which input row makes each output row
    pad         pads [[before, after] of each axis], pad_value
    reshape, transpose (order), slice (axis, start, step), gather (axis, indices)     copies
    float       file: an ONNX model from codes to codes, for what has no integer form

All but copies end with `y = clamp(zero_point + RS(sum), clamp)`, where RS multiplies and shifts
right with the program's rounding (`qconvert.integer.rounding`). A conv or fc without multiplier
gives its sums as they are (a network output of 32 bits).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "Encoding",
    "Layer",
    "Numeric",
    "Op",
    "Program",
    "Role",
    "Rounding",
    "Tensor",
    "unique_id",
]

Role: TypeAlias = Literal[
    "input", "output", "activation", "weight", "bias", "multiplier", "shift", "lut"
]
Encoding: TypeAlias = Literal["integer", "log2", "float"]
"""`integer`: two's complement or unsigned codes. `log2`: a weight is `sign(c) 2^(|c| - 1)`, 0 for
c = 0. `float`: float32, between float layers."""
Rounding: TypeAlias = Literal["half_up", "half_even", "half_away", "tflite_double"]
Op: TypeAlias = Literal[
    "conv", "depthwise", "fc", "add", "mul", "avg_pool", "max_pool", "concat", "requantize",
    "clamp", "lut", "resize", "pad", "reshape", "transpose", "slice", "gather", "float",
]  # fmt: skip

ROUNDINGS: Final = get_args(Rounding)

Codes: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor of codes.

    Attributes:
        id: Unique within the program, letters, digits and `_` only; the name of its files.
        name: What the model calls it.
        role: What it is for.
        bits: Width of a code, 1 to 64.
        signed: Whether codes are two's complement.
        shape: Sizes, batch 1 included.
        axes: One letter an axis: `NCHW`, `OIHW`, `OI`, `NC`, `O`, ...
        low: Smallest code that may occur.
        high: Largest code that may occur.
        scale: One scale, or one for each index of `axis`; empty where codes are no real numbers.
        zero_point: The code of 0.
        axis: Channel axis of the scales; None for one scale.
        encoding: How codes stand for integers.
        values: The codes of a parameter, of `shape`, in the smallest integer type that holds
            `bits`; None for activations.
    """

    id: str
    name: str
    role: Role
    bits: int
    signed: bool
    shape: tuple[int, ...]
    axes: str
    low: int
    high: int
    scale: tuple[float, ...] = ()
    zero_point: int = 0
    axis: int | None = None
    encoding: Encoding = "integer"
    values: Codes | None = None

    @property
    def is_parameter(self) -> bool:
        """Whether its codes are known before the network runs."""
        return self.values is not None

    @property
    def dtype(self) -> str:
        """The numpy type that holds its codes: the smallest integer type of `bits` or more."""
        if self.encoding == "float":
            return "float32"
        width = next(size for size in (8, 16, 32, 64) if self.bits <= size)
        return f"{'' if self.signed else 'u'}int{width}"


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One operation.

    Attributes:
        id: Unique within the program, letters, digits and `_` only.
        name: The source layer's name.
        op: What it does.
        inputs: Ids of the tensors it reads, in order.
        outputs: Ids of the tensors it writes; one, but for `float`.
        parameters: `weight`, `bias`, `multiplier`, `shift`, `lut` → id of the tensor.
        attributes: Geometry and the like, JSON values.
        clamp: Smallest and largest code of the output; None for `float` and for plain copies.
        accumulator_bits: Declared width of its sums, two's complement; 0 where nothing is summed.
            For `add` and `mul` it is about the products.
        accumulator_bits_needed: The width that holds every sum, partial ones in any order
            included, that these weights can make of any input codes.
        macs: Multiply-accumulates.
    """

    id: str
    name: str
    op: Op
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    clamp: tuple[int, int] | None = None
    accumulator_bits: int = 0
    accumulator_bits_needed: int = 0
    macs: int = 0


@dataclass(frozen=True, slots=True)
class Numeric:
    """What all layers have in common.

    Attributes:
        rounding: How RS rounds.
        requantization: `fixed_point` multiplies and shifts, `power_of_two` only shifts (the
            averages of pools multiply all the same).
        multiplier_bits: Multipliers are below 2^bits, unsigned.
        accumulator_bits: Declared width of sums.
        bias_bits: Width of biases; what is wider loses its lowest bits (`bias_shift`).
    """

    rounding: Rounding = "half_up"
    requantization: Literal["fixed_point", "power_of_two"] = "fixed_point"
    multiplier_bits: int = 31
    accumulator_bits: int = 32
    bias_bits: int = 32


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A network on integers.

    Attributes:
        numeric: What all layers have in common.
        tensors: By id.
        layers: In an order in which they can run.
        inputs: Ids of the network's inputs; their `name` is the network's name for them.
        results: The network's name for an output → id of the tensor that holds it.
    """

    numeric: Numeric
    tensors: Mapping[str, Tensor]
    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    results: Mapping[str, str]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Ids of the network's outputs."""
        return tuple(dict.fromkeys(self.results.values()))

    @property
    def integer_only(self) -> bool:
        """Whether no layer runs in float."""
        return all(layer.op != "float" for layer in self.layers)

    def parameter(self, layer: Layer, name: str) -> Tensor | None:
        """A parameter of `layer`, e.g. `weight`; None when it has none of that name."""
        found = layer.parameters.get(name)
        return None if found is None else self.tensors[found]

    def parameters(self) -> Iterable[Tensor]:
        """Every tensor whose codes are known."""
        return (tensor for tensor in self.tensors.values() if tensor.is_parameter)


def unique_id(name: str, taken: set[str]) -> str:
    """An identifier for `name`, valid in C, Verilog and file names; added to `taken`.

    Two names never get one identifier, not even one that differs in case only: some file systems
    do not tell them apart.
    """
    stem = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "tensor"
    stem = f"t{stem}" if stem[0].isdigit() else stem
    candidate, count = stem, 1
    while candidate.lower() in taken:
        count += 1
        candidate = f"{stem}_{count}"
    taken.add(candidate.lower())
    return candidate

"""Integer programs of one layer with random codes, for tests of what is written about them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qconvert.backends.raw.files import Files
from qconvert.backends.raw.golden import Case
from qconvert.formats.hardware.order import Layout
from qconvert.integer.document import describe_layer, describe_program
from qconvert.integer.executor import Executor
from qconvert.integer.program import Codes, Layer, Numeric, Op, Program, Rounding, Tensor
from qconvert.integer.sums import accumulator_bits, integers

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.integer.program import Encoding, Role

__all__ = ["LINEAR_CASES", "Linear", "code_tensor", "random_codes", "write_bundle"]


def code_tensor(  # noqa: PLR0913 - the fields of a tensor
    key: str,
    role: Role,
    axes: str,
    shape: tuple[int, ...],
    *,
    bits: int = 8,
    signed: bool = True,
    zero_point: int = 0,
    encoding: Encoding = "integer",
    values: Codes | None = None,
) -> Tensor:
    """A tensor that uses the whole range of its width."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    plain = Tensor(
        key, key, role, bits, signed, shape, axes, low, high, (1.0,), zero_point, None, encoding
    )
    if values is None:
        return plain
    fields = {name: getattr(plain, name) for name in Tensor.__slots__}
    return Tensor(**{**fields, "values": values.reshape(shape).astype(plain.dtype)})


def random_codes(tensor: Tensor, rng: np.random.Generator) -> Codes:
    """Codes from the whole range of a tensor."""
    return rng.integers(tensor.low, tensor.high + 1, tensor.shape).astype(tensor.dtype)


@dataclass(frozen=True, slots=True)
class Linear:
    """A convolution or a fully connected layer.

    Attributes:
        id: Says what is special about it.
        op: `conv`, `depthwise` or `fc`.
        channels: Of input and output.
        size: Rows and columns of the input.
        kernel, strides, pads, dilations, groups: As in a program.
        bits: Of the weights.
        x: Width of input codes and whether they are signed.
        y_bits: Width of output codes.
        zero_points: Of input and output.
        multiplier_bits: Width of multipliers; 0: they are 1.
        per_channel: Whether every output has a multiplier of its own.
        scaled: Whether there are multipliers at all.
        bias_shift: How far the bias is shifted up; its width is then 16 bits.
        log2: Whether weights are signs and exponents.
        rounding: Of the program.
        layout: What the files are to be in.
    """

    id: str
    op: Op = "conv"
    channels: tuple[int, int] = (4, 11)
    size: tuple[int, int] = (7, 6)
    kernel: tuple[int, int] = (3, 2)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    bits: int = 8
    x: tuple[int, bool] = (8, True)
    y_bits: int = 8
    zero_points: tuple[int, int] = (0, 0)
    multiplier_bits: int = 31
    per_channel: bool = True
    scaled: bool = True
    bias_shift: int = 0
    log2: bool = False
    rounding: Rounding = "half_up"
    layout: str = "pe:8"

    def program(self, rng: np.random.Generator) -> Program:
        """The layer alone, from `x` to `y`, with random weights."""
        tensors = self._activations()
        source, result = tensors
        outputs = self.channels[1]
        top = (1 << (self.bits - 1)) - 1
        shape = self._weight_shape()
        tensors.append(
            code_tensor(
                "layer_weight",
                "weight",
                "OIHW"[: len(shape)],
                shape,
                bits=self.bits,
                encoding="log2" if self.log2 else "integer",
                values=rng.integers(-top, top + 1, shape),
            )
        )
        bias = rng.integers(-2000, 2000, outputs)
        width = 16 if self.bias_shift else 32
        tensors.append(code_tensor("layer_bias", "bias", "O", (outputs,), bits=width, values=bias))
        rows = integers(tensors[2]).reshape(outputs, -1)
        needed = accumulator_bits(rows, bias << self.bias_shift, source)
        if self.scaled:
            tensors += self._scaling(rng, needed)
        layer = Layer(
            "layer",
            "layer",
            self.op,
            ("x",),
            ("y",),
            {tensor.role: tensor.id for tensor in tensors[2:]},
            self._attributes(),
            (result.low, result.high),
            max(32, needed),
            needed,
            macs=int(np.prod(result.shape)) * int(np.prod(shape[1:])),
        )
        numeric = Numeric(self.rounding, multiplier_bits=self.multiplier_bits or 1)
        return Program(
            numeric, {tensor.id: tensor for tensor in tensors}, (layer,), ("x",), {"y": "y"}
        )

    def _activations(self) -> list[Tensor]:
        """Input and output."""
        (inputs, outputs), (height, width) = self.channels, self.size
        zero_x, zero_y = self.zero_points
        x_bits, signed = self.x
        y_bits = self.y_bits if self.scaled else 32
        if self.op == "fc":
            shapes = ((1, inputs), (1, outputs))
            axes = "NC"
        else:
            top, left, bottom, right = self.pads
            spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
            rows = (height + top + bottom - spans[0]) // self.strides[0] + 1
            columns = (width + left + right - spans[1]) // self.strides[1] + 1
            shapes = ((1, inputs, height, width), (1, outputs, rows, columns))  # type: ignore[assignment]  # maps have two axes more
            axes = "NCHW"
        return [
            code_tensor(
                "x", "input", axes, shapes[0], bits=x_bits, signed=signed, zero_point=zero_x
            ),
            code_tensor("y", "output", axes, shapes[1], bits=y_bits, zero_point=zero_y),
        ]

    def _weight_shape(self) -> tuple[int, ...]:
        inputs, outputs = self.channels
        if self.op == "fc":
            return outputs, inputs
        return outputs, inputs // self.groups, *self.kernel

    def _scaling(self, rng: np.random.Generator, needed: int) -> list[Tensor]:
        """Multipliers and shifts that spread the sums over the output's range."""
        count = self.channels[1] if self.per_channel else 1
        bits = max(self.multiplier_bits, 1)
        multipliers = rng.integers(1 << (bits - 1), 1 << bits, count)
        places = max(needed - self.y_bits - 3, 0) + self.multiplier_bits
        shifts = rng.integers(places, places + 4, count)
        return [
            code_tensor(
                "layer_multiplier",
                "multiplier",
                "O",
                (count,),
                bits=bits,
                signed=False,
                values=multipliers,
            ),
            code_tensor("layer_shift", "shift", "O", (count,), bits=6, signed=False, values=shifts),
        ]

    def _attributes(self) -> dict[str, Any]:
        shifted = {"bias_shift": self.bias_shift} if self.bias_shift else {}
        if self.op == "fc":
            return shifted
        return {
            "kernel": list(self.kernel),
            "strides": list(self.strides),
            "pads": list(self.pads),
            "dilations": list(self.dilations),
            "groups": self.groups,
            "pad_value": self.zero_points[0],
            **shifted,
        }


LINEAR_CASES = (
    Linear("plain"),
    Linear("odd_geometry", strides=(2, 3), pads=(0, 1, 2, 3), dilations=(2, 1), bits=7),
    Linear("zero_points", zero_points=(-5, 3)),
    Linear("depthwise", op="depthwise", channels=(11, 11), groups=11),
    Linear("depthwise_two_filters", op="depthwise", channels=(6, 12), groups=6),
    Linear("unsigned_depthwise", op="depthwise", channels=(6, 6), groups=6, x=(8, False),
           zero_points=(9, 0)),
    Linear("groups", groups=2, channels=(4, 6)),
    Linear("fully_connected", op="fc", channels=(33, 10)),
    Linear("sums_as_they_are", op="fc", channels=(33, 10), scaled=False),
    Linear("bits_4_one_lane", bits=4, layout="oihw"),
    Linear("bits_2_three_lanes", bits=2, layout="pe:3", multiplier_bits=15),
    Linear("bits_16", bits=16, y_bits=16),
    Linear("codes_of_7_bits", bits=7, x=(7, True), y_bits=7),
    Linear("one_multiplier_of_16", multiplier_bits=16, per_channel=False),
    Linear("shift_only", multiplier_bits=0),
    Linear("shift_only_half_even", multiplier_bits=0, rounding="half_even"),
    Linear("shift_only_half_away", multiplier_bits=0, rounding="half_away"),
    Linear("half_even", rounding="half_even"),
    Linear("half_away", rounding="half_away"),
    Linear("two_roundings", rounding="tflite_double"),
    Linear("exponents", log2=True, bits=4),
    Linear("exponents_and_zero_point", log2=True, bits=5, zero_points=(3, -7)),
    Linear("shifted_bias", bias_shift=4),
)  # fmt: skip


def write_bundle(program: Program, folder: Path, emit: tuple[str, ...], layout: str) -> Codes:
    """Write a program with one golden case of random input, as a bundle; returns the output."""
    rng = np.random.default_rng(5)
    inputs = {key: random_codes(program.tensors[key], rng) for key in program.inputs}
    kept = [key for key, tensor in program.tensors.items() if not tensor.is_parameter]
    case = Case("case_0", {})
    case.codes = Executor(program).run(inputs, keep=kept)
    files = Files(folder, program, Layout.parse(layout), emit)
    rows = [{"name": layer.name, **describe_layer(layer)} for layer in program.layers]
    document = describe_program(program, files.parameters())
    document |= {"layers": rows, "golden": [files.case(case)]}
    (folder / "manifest.json").write_text(json.dumps(document))
    return case.codes[program.outputs[0]]

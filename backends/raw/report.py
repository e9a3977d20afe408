"""What an integer program costs in hardware, and what every layer loses: numbers and a page."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qconvert.runtimes.integer import real
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    from qconvert.integer.program import Codes, Layer, Program, Tensor
    from qconvert.quant import F32
    from qconvert.runtimes.integer import IntegerRuntime

__all__ = ["Costs", "measure", "page"]

_SAMPLES: Final = 2
"""Inputs that errors are measured on: they vary little, and hardware people look at the worst."""
_COLUMNS: Final = (
    "layer", "op", "output", "MACs", "parameters", "buffers", "sum bits", "zero weights",
    "zero codes", "SNR",
)  # fmt: skip
_EXPOSED: Final = "/float"
"""End of the name that an output's float value has in a Q/DQ model."""


@dataclass(slots=True)
class _Error:
    """Running sums of a comparison."""

    signal: float = 0.0
    noise: float = 0.0
    zeros: int = 0
    codes: int = 0

    def add(self, wanted: F32 | None, codes: Codes, tensor: Tensor) -> None:
        """Take in one sample of a tensor."""
        self.zeros += int(np.count_nonzero(codes == tensor.zero_point))
        self.codes += codes.size
        if wanted is not None and wanted.size == codes.size:
            right = wanted.astype(np.float64).reshape(codes.shape)
            self.signal += float(np.square(right).sum())
            self.noise += float(np.square(right - real(tensor, codes)).sum())

    @property
    def snr_db(self) -> float | None:
        """Signal to noise; None where nothing was compared, or it is no number."""
        if not (0 < self.signal < math.inf and 0 < self.noise < math.inf):
            return None
        return round(10 * math.log10(self.signal / self.noise), 1)


@dataclass(frozen=True, slots=True)
class Costs:
    """What a program costs.

    Attributes:
        layers: Layer id → figures.
        totals: Figures of the whole network.
    """

    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    totals: Mapping[str, Any] = field(default_factory=dict)


def measure(
    runtime: IntegerRuntime, float_model: ir.Model, samples: Iterable[Mapping[str, F32]]
) -> Costs:
    """Add up memory and work, and compare every layer with the float model.

    Args:
        runtime: The program.
        float_model: What it should compute; values have the names of the program's tensors.
        samples: Network inputs; the first few are used.
    """
    program = runtime.program
    errors = _errors(runtime, float_model, samples)
    layers = {layer.id: _layer(program, layer, errors) for layer in program.layers}
    rows = list(layers.values())
    weights = [t.values for t in program.parameters() if t.role == "weight"]
    stored = sum(array.size for array in weights if array is not None)
    zeros = sum(int(np.count_nonzero(array == 0)) for array in weights if array is not None)
    totals = {
        "macs": sum(layer.macs for layer in program.layers),
        "parameter_bytes": sum(_bytes(tensor) for tensor in program.parameters()),
        "largest_buffer_bytes": max(row["buffer_bytes"] for row in rows),
        "largest_layer_parameter_bytes": max(row["parameter_bytes"] for row in rows),
        "accumulator_bits_needed": max(
            (layer.accumulator_bits_needed for layer in program.layers if _multiplies(layer)),
            default=0,
        ),
        "zero_weights": round(zeros / stored, 4) if stored else None,
        "float_layers": sum(layer.op == "float" for layer in program.layers),
    }
    return Costs(layers, totals)


def _multiplies(layer: Layer) -> bool:
    """Whether a layer needs an accumulator in the sense of hardware: sums of products."""
    return "weight" in layer.parameters


def _bytes(tensor: Tensor) -> int:
    """What a tensor takes, codes packed bit by bit."""
    return -(-math.prod(tensor.shape) * tensor.bits // 8) if min(tensor.shape, default=1) > 0 else 0


def _layer(program: Program, layer: Layer, errors: Mapping[str, _Error]) -> dict[str, Any]:
    """Figures of one layer."""
    maps = [program.tensors[name] for name in (*layer.inputs, *layer.outputs)]
    weight = program.parameter(layer, "weight")
    error = errors.get(layer.outputs[0], _Error())
    return {
        "parameter_bytes": sum(_bytes(program.tensors[k]) for k in layer.parameters.values()),
        # One buffer is filled while the other is read.
        "buffer_bytes": 2 * sum(_bytes(tensor) for tensor in maps),
        "zero_weights": None
        if weight is None or weight.values is None
        else round(1 - np.count_nonzero(weight.values) / max(weight.values.size, 1), 4),
        "zero_activations": round(error.zeros / error.codes, 3) if error.codes else None,
        "snr_db": error.snr_db,
    }


def _errors(
    runtime: IntegerRuntime, float_model: ir.Model, samples: Iterable[Mapping[str, F32]]
) -> dict[str, _Error]:
    """Tensor id → what it loses."""
    made = {str(value.name) for node in float_model.graph for value in node.outputs}
    program = runtime.program
    ids = {
        tensor.id: tensor.name.removesuffix(_EXPOSED)
        for tensor in program.tensors.values()
        if not tensor.is_parameter and tensor.role != "input" and tensor.encoding == "integer"
    }
    names = sorted(made.intersection(ids.values()))
    errors = {key: _Error() for key in ids}
    if not names:
        return errors
    with OnnxRuntime(with_outputs(float_model, names), optimize=False) as reference:
        for inputs in islice(samples, _SAMPLES):
            wanted, found = reference.run(inputs), runtime.codes(inputs, keep=ids)
            for key, name in ids.items():
                errors[key].add(wanted.get(name), found[key], program.tensors[key])
    return errors


def page(program: Program, costs: Costs, floats: Mapping[str, str]) -> str:
    """`report.md`: the figures as a page.

    Args:
        program: The program.
        costs: Its figures.
        floats: Layer name → why it stays float.
    """
    lines = [
        "# What this network needs",
        "",
        *(f"* {line}" for line in _facts(program, costs.totals)),
        "",
        "`SNR` compares the output of a layer with that of the float model: every 6 dB less are a",
        "bit lost, and a layer inherits what the ones before it lost. Buffers are what a layer",
        "reads and what it writes, both double-buffered.",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|---|---|---|" + "---:|" * (len(_COLUMNS) - 3),
        *(_row(program, layer, costs.layers[layer.id]) for layer in program.layers),
    ]
    if floats:
        lines += ["", "## In float", "", *(f"* `{name}`: {why}" for name, why in floats.items())]
    return "\n".join(lines) + "\n"


def _facts(program: Program, totals: Mapping[str, Any]) -> list[str]:
    """The network as a whole."""
    numeric = program.numeric
    kind = numeric.requantization.replace("_", " ")
    largest = _size(totals["largest_layer_parameter_bytes"])
    widths = f"multipliers of {numeric.multiplier_bits} bits, biases of {numeric.bias_bits} bits"
    needed = totals["accumulator_bits_needed"]
    return [
        f"{totals['macs']:,} multiply-accumulates an inference",
        f"{len(program.layers)} layers, {totals['float_layers']} of them in float",
        f"{_size(totals['parameter_bytes'])} of parameters, packed; {largest} in the largest layer",
        f"{_size(totals['largest_buffer_bytes'])} of buffers for the largest feature maps",
        f"sums of {needed} bits, whatever the input; {numeric.accumulator_bits} are declared",
        f"{_share(totals['zero_weights'])} of the weights are zero",
        f"requantization: {kind}, rounding {numeric.rounding}, {widths}",
    ]


def _row(program: Program, layer: Layer, figures: Mapping[str, Any]) -> str:
    """One layer of the table."""
    output = program.tensors[layer.outputs[0]]
    shape = "x".join(map(str, output.shape))
    cells = [
        f"`{layer.name}`",
        layer.op,
        f"{shape}, {output.bits} bits",
        f"{layer.macs:,}" if layer.macs else "",
        _size(figures["parameter_bytes"]),
        _size(figures["buffer_bytes"]),
        str(layer.accumulator_bits_needed or ""),
        _share(figures["zero_weights"]),
        _share(figures["zero_activations"]),
        "" if figures["snr_db"] is None else f"{figures['snr_db']:.1f} dB",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _size(count: int) -> str:
    """Bytes for people."""
    if count < 1024:
        return f"{count} B" if count else ""
    return f"{count / 1024:.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.2f} MiB"


def _share(share: float | None) -> str:
    """A rate for people."""
    return "" if share is None else f"{share:.1%}"

"""Which weights each ncnn layer reads from the `.bin`, in which order and how many of each.

The one table behind reading a foreign `.bin` and auditing one of ours: a wrong count anywhere
shifts everything that follows, and ncnn notices layers later or never.

Reference: Tencent/ncnn src/layer/*.cpp (load_param and load_model of each layer).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from qconvert.errors import ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from qconvert.formats.ncnn_bin import BinReader
    from qconvert.formats.ncnn_param import Layer

__all__ = ["Slot", "read_weights", "slots"]


@dataclass(frozen=True, slots=True)
class Slot:
    """One weight a layer asks for.

    Attributes:
        name: `weight`, `bias`, `weight_scales`, `bottom_scale`, `top_scale`, `slope`, ...
        count: Number of values, > 0.
        tagged: Whether a storage tag stands in front.
    """

    name: str
    count: int
    tagged: bool = False


_Rule: TypeAlias = "Callable[[Layer], list[Slot]]"
_RULES: Final[dict[str, _Rule]] = {}


def _reads(*kinds: str) -> Callable[[_Rule], _Rule]:
    """Register what layers of `kinds` read."""

    def register(rule: _Rule) -> _Rule:
        for kind in kinds:
            if kind in _RULES:
                raise ValueError(f"the weights of {kind} are listed twice")
            _RULES[kind] = rule
        return rule

    return register


def slots(layer: Layer) -> tuple[Slot, ...]:
    """What `layer` reads from the .bin, in order; empty for a layer without weights.

    Raises:
        ModelFormatError: If a parameter gives an impossible size.
    """
    rule = _RULES.get(layer.kind)
    wanted = tuple(rule(layer)) if rule is not None else ()
    for slot in wanted:
        if slot.count <= 0:
            raise ModelFormatError(
                f"the {slot.name} of {layer.kind} '{layer.name}' has {slot.count} values",
                at=layer.place,
                why="its parameters do not describe a layer",
            )
    return wanted


def read_weights(layer: Layer, reader: BinReader) -> dict[str, npt.NDArray[np.generic]]:
    """The weights of `layer` by slot name, each [count]: float32, or int8 where stored so.

    Raises:
        ModelFormatError: If the file does not hold them.
    """
    weights: dict[str, npt.NDArray[np.generic]] = {}
    for slot in slots(layer):
        what = f"{slot.name} of '{layer.name}'"
        read = reader.tagged if slot.tagged else reader.raw
        weights[slot.name] = read(slot.count, what)
    return weights


def _bias(layer: Layer, key: int, count: int) -> list[Slot]:
    """A raw bias when parameter `key` says that there is one."""
    return [Slot("bias", count)] if layer.int(key, 0) else []


@_reads("Convolution")
def _convolution(layer: Layer) -> list[Slot]:
    """Weight, bias, one scale per output channel, input scale, and output scale above 100."""
    if layer.int(19, 0):
        return []
    outputs, term = layer.int(0, 0), layer.int(8, 0)
    wanted = [Slot("weight", layer.int(6, 0), tagged=True), *_bias(layer, 5, outputs)]
    if term:
        wanted += [Slot("weight_scales", outputs), Slot("bottom_scale", 1)]
    if term > 100:
        wanted.append(Slot("top_scale", 1))
    return wanted


@_reads("ConvolutionDepthWise")
def _convolution_depthwise(layer: Layer) -> list[Slot]:
    """As Convolution, with one weight scale per group (1, 101) or a single one (2, 102)."""
    if layer.int(19, 0):
        return []
    outputs, term = layer.int(0, 0), layer.int(8, 0)
    wanted = [Slot("weight", layer.int(6, 0), tagged=True), *_bias(layer, 5, outputs)]
    if term in {1, 101}:
        wanted += [Slot("weight_scales", layer.int(7, 1)), Slot("bottom_scale", 1)]
    elif term in {2, 102}:
        wanted += [Slot("weight_scales", 1), Slot("bottom_scale", 1)]
    if term > 100:
        wanted.append(Slot("top_scale", 1))
    return wanted


@_reads(
    "Convolution1D",
    "Convolution3D",
    "ConvolutionDepthWise1D",
    "ConvolutionDepthWise3D",
)
def _float_convolution(layer: Layer) -> list[Slot]:
    """Weight and bias; parameter 19 makes both inputs."""
    if layer.int(19, 0):
        return []
    return [Slot("weight", layer.int(6, 0), tagged=True), *_bias(layer, 5, layer.int(0, 0))]


@_reads(
    "Deconvolution",
    "Deconvolution1D",
    "Deconvolution3D",
    "DeconvolutionDepthWise",
    "DeconvolutionDepthWise1D",
    "DeconvolutionDepthWise3D",
)
def _deconvolution(layer: Layer) -> list[Slot]:
    """Weight and bias; parameter 28 makes both inputs."""
    if layer.int(28, 0):
        return []
    return [Slot("weight", layer.int(6, 0), tagged=True), *_bias(layer, 5, layer.int(0, 0))]


@_reads("DeformableConv2D")
def _deformable(layer: Layer) -> list[Slot]:
    """Weight and bias."""
    return [Slot("weight", layer.int(6, 0), tagged=True), *_bias(layer, 5, layer.int(0, 0))]


@_reads("InnerProduct")
def _inner_product(layer: Layer) -> list[Slot]:
    """Weight, bias, one scale per output, input scale."""
    outputs = layer.int(0, 0)
    wanted = [Slot("weight", layer.int(2, 0), tagged=True), *_bias(layer, 1, outputs)]
    if layer.int(8, 0):
        wanted += [Slot("weight_scales", outputs), Slot("bottom_scale", 1)]
    return wanted


def _refuse_blocks(layer: Layer, term: int) -> None:
    """Refuse the block-wise weight quantization of language models, which is another format."""
    if term >= 400:
        raise ModelFormatError(
            f"{layer.kind} '{layer.name}' has block-quantized weights",
            at=layer.place,
            why=f"quantize_term {term} is a format of its own, for language models",
        )


@_reads("Gemm")
def _gemm(layer: Layer) -> list[Slot]:
    """The constant ones of A, B and C, then the scales of A (per row) and B (one)."""
    m, n, k = layer.int(7, 0), layer.int(8, 0), layer.int(9, 0)
    constant_a, constant_b = layer.int(4, 0) == 1, layer.int(5, 0) == 1
    broadcast, term = layer.int(10, 0), layer.int(18, 0)
    _refuse_blocks(layer, term)
    wanted = [Slot("A", m * k, tagged=True)] if constant_a else []
    if constant_b:
        wanted.append(Slot("B", k * n, tagged=True))
    if layer.int(6, 0) == 1 and broadcast != -1:
        count = {0: 1, 1: m, 2: m, 3: m * n, 4: n}.get(broadcast, 0)
        wanted.append(Slot("C", count, tagged=True))
    if term and constant_a:
        wanted.append(Slot("A_scales", m))
    if term and constant_b:
        wanted.append(Slot("B_scale", 1))
    return wanted


@_reads("MultiHeadAttention")
def _attention(layer: Layer) -> list[Slot]:
    """Weight and bias of q, k, v and output; then their scales, one for the output."""
    size, term = layer.int(0, 0), layer.int(18, 0)
    _refuse_blocks(layer, term)
    query = layer.int(2, 0) // max(size, 1)
    widths = {"q": query, "k": layer.int(3, size), "v": layer.int(4, size)}
    wanted: list[Slot] = []
    for part, width in widths.items():
        wanted += [Slot(f"{part}_weight", size * width, tagged=True), Slot(f"{part}_bias", size)]
    wanted += [Slot("out_weight", query * size, tagged=True), Slot("out_bias", query)]
    if term:
        wanted += [Slot(f"{part}_scales", size) for part in widths]
        wanted.append(Slot("out_scale", 1))
    return wanted


def _recurrent(layer: Layer, hidden: int, gates: int, bias_rows: int) -> list[Slot]:
    """Input weight, bias, hidden weight [, projection], then the scales of both weights."""
    outputs = layer.int(0, 0)
    directions = 2 if layer.int(2, 0) == 2 else 1
    rows = directions * hidden * gates
    width = layer.int(1, 0) // max(rows, 1)
    wanted = [
        Slot("xc", width * rows, tagged=True),
        Slot("bias", directions * bias_rows * hidden, tagged=True),
        Slot("hc", outputs * rows, tagged=True),
    ]
    if hidden != outputs:
        wanted.append(Slot("hr", directions * hidden * outputs, tagged=True))
    if layer.int(8, 0):
        wanted += [Slot("xc_scales", rows), Slot("hc_scales", rows)]
    return wanted


@_reads("LSTM")
def _lstm(layer: Layer) -> list[Slot]:
    """Gates I, F, O, G; a hidden size of its own makes a projection."""
    return _recurrent(layer, layer.int(3, layer.int(0, 0)), gates=4, bias_rows=4)


@_reads("GRU")
def _gru(layer: Layer) -> list[Slot]:
    """Gates R, U, N; the bias has rows R, U, WN, BN."""
    return _recurrent(layer, layer.int(0, 0), gates=3, bias_rows=4)


@_reads("RNN")
def _rnn(layer: Layer) -> list[Slot]:
    """One gate."""
    return _recurrent(layer, layer.int(0, 0), gates=1, bias_rows=1)


@_reads("Embed")
def _embed(layer: Layer) -> list[Slot]:
    """Table, bias, one scale."""
    wanted = [Slot("weight", layer.int(3, 0), tagged=True), *_bias(layer, 2, layer.int(0, 0))]
    return [*wanted, Slot("weight_scale", 1)] if layer.int(18, 0) else wanted


@_reads("BatchNorm")
def _batch_norm(layer: Layer) -> list[Slot]:
    """Slope, mean, variance, bias."""
    return [Slot(name, layer.int(0, 0)) for name in ("slope", "mean", "var", "bias")]


@_reads("Scale")
def _scale(layer: Layer) -> list[Slot]:
    """Scale and bias; nothing when the scale is the second input (-233)."""
    size = layer.int(0, 0)
    return [] if size == -233 else [Slot("scale", size), *_bias(layer, 1, size)]


@_reads("Bias")
def _bias_layer(layer: Layer) -> list[Slot]:
    return [Slot("bias", layer.int(0, 0))]


@_reads("PReLU")
def _prelu(layer: Layer) -> list[Slot]:
    return [Slot("slope", layer.int(0, 0))]


@_reads("Normalize")
def _normalize(layer: Layer) -> list[Slot]:
    return [Slot("scale", layer.int(3, 0))]


@_reads("InstanceNorm")
def _instance_norm(layer: Layer) -> list[Slot]:
    return _affine(layer, size=layer.int(0, 0), switch=2)


@_reads("GroupNorm")
def _group_norm(layer: Layer) -> list[Slot]:
    return _affine(layer, size=layer.int(1, 0), switch=3)


@_reads("LayerNorm")
def _layer_norm(layer: Layer) -> list[Slot]:
    return _affine(layer, size=layer.int(0, 0), switch=2)


@_reads("RMSNorm")
def _rms_norm(layer: Layer) -> list[Slot]:
    return _affine(layer, size=layer.int(0, 0), switch=2)[:1]


def _affine(layer: Layer, *, size: int, switch: int) -> list[Slot]:
    """Gamma and beta, unless parameter `switch` is 0."""
    return [Slot("gamma", size), Slot("beta", size)] if layer.int(switch, 1) else []


@_reads("Padding")
def _padding(layer: Layer) -> list[Slot]:
    """Values per channel, if any."""
    size = layer.int(6, 0)
    return [Slot("values", size)] if size else []


@_reads("MemoryData")
def _memory_data(layer: Layer) -> list[Slot]:
    """The constant: raw by default, tagged when parameter 21 is 0."""
    width, height, depth, channels = (layer.int(key, 0) for key in (0, 1, 11, 2))
    sizes: Sequence[int]
    if depth:
        sizes = (width, height, depth, channels)
    elif channels:
        sizes = (width, height, channels)
    else:
        sizes = (width, height) if height else (width,)
    if not any(sizes):
        return []
    count = 1
    for size in sizes:
        count *= size
    return [Slot("data", count, tagged=layer.int(21, 1) == 0)]


@_reads("Quantize")
def _quantize(layer: Layer) -> list[Slot]:
    return [Slot("scale", layer.int(0, 1))]


@_reads("Dequantize")
def _dequantize(layer: Layer) -> list[Slot]:
    bias = layer.int(1, 0)
    return [Slot("scale", layer.int(0, 1)), *([Slot("bias", bias)] if bias else [])]


@_reads("Requantize")
def _requantize(layer: Layer) -> list[Slot]:
    bias = layer.int(2, 0)
    return [
        Slot("scale_in", layer.int(0, 1)),
        Slot("scale_out", layer.int(1, 1)),
        *([Slot("bias", bias)] if bias else []),
    ]

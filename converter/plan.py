"""What a target accepts, what the user asks for, and the plan that follows from both.

`Policy` is a target's table of facts: data, no code paths. `Scheme` is the user's request. The
planner (`qconvert.passes.planning`) makes a `Plan` of the two for one model; calibration finds
scales for what the plan names, and `qconvert.passes.insert_qdq` writes it into the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ActivationSpec",
    "Granularity",
    "OpRule",
    "Plan",
    "PlannedLayer",
    "Policy",
    "Scheme",
]

Granularity: TypeAlias = Literal["channel", "group", "tensor"]
"""One weight scale per output channel, per convolution group, or one for the whole tensor.

`group` is about grouped convolutions alone: without groups it means per channel."""


@dataclass(frozen=True, slots=True)
class OpRule:
    """What a target does with one operator.

    Attributes:
        op_type: ONNX operator, e.g. `Conv`.
        weights: How fine its weight scales may be; None when it has no quantized weight.
        role: `compute` quantizes its inputs (and weight); `aligned` needs one scale on all
            inputs (and the output); `inherits` passes codes through unchanged; `weights` holds
            its weights as integers, and finds the scales of its inputs as it runs.
        note: A sentence for docs and `qconvert formats`.
        ranks: Ranks of the input it holds for (4: images); empty: any.
    """

    op_type: str
    role: Literal["compute", "aligned", "inherits", "weights"]
    weights: Granularity | None = None
    note: str = ""
    ranks: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Policy:
    """What a target can run as integers.

    Attributes:
        target: `ncnn`, `tensorrt`, `raw`, `onnx`.
        rules: One row per operator; an operator without a row stays float.
        weight_bits: Widths weights may have.
        activation_bits: Widths activations may have.
        asymmetric: Whether activations may have a zero point.
        integer_graph: True where *every* activation between compute operators is quantized
            (raw, tensorrt); False where only inputs of compute operators are (ncnn).
        quantize_outputs: Whether network outputs get Q/DQ too.
        bias_int32: Whether biases are int32 at scale input * weight.
        every_value: Whether a scale is wanted for every float value, between a layer and its
            activation function too (TensorRT's calibration cache, `qconvert calibrate`).
        free_placement: Whether Q/DQ nodes may stand anywhere: those a model brings are left alone.
        rounds_away: Whether int8 activations are rounded half away from zero and stop at -127, as
            C code does it, not half to even and at -128 as QuantizeLinear does.
    """

    target: str
    rules: Mapping[str, OpRule]
    weight_bits: frozenset[int]
    activation_bits: frozenset[int]
    asymmetric: bool = False
    integer_graph: bool = False
    quantize_outputs: bool = False
    bias_int32: bool = False
    every_value: bool = False
    free_placement: bool = False
    rounds_away: bool = False


@dataclass(frozen=True, slots=True)
class Scheme:
    """What the user asks for.

    Attributes:
        weight_bits: Default width of weights.
        activation_bits: Default width of activations.
        asymmetric: Activations get a zero point.
        unsigned: Activations that never go below 0 use codes 0..2^b-1 (`--activation-type uint8`).
        per_tensor: One scale per weight tensor.
        float_layers: Glob patterns of layer names that stay float.
        layer_bits: Glob pattern → width of weights and input of the layers it matches; the last
            match wins.
        input_scales: Network input → fixed scale (camera pixels: 1/128).
    """

    weight_bits: int = 8
    activation_bits: int = 8
    asymmetric: bool = False
    unsigned: bool = False
    per_tensor: bool = False
    float_layers: tuple[str, ...] = ()
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    input_scales: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActivationSpec:
    """How one activation is to be quantized.

    Attributes:
        bits: Width of its codes.
        asymmetric: Whether it gets a zero point.
        unsigned: Whether codes are 0..2^b-1.
        fixed_scale: The scale the user gave; None: calibration finds it.
    """

    bits: int = 8
    asymmetric: bool = False
    unsigned: bool = False
    fixed_scale: float | None = None


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """One operator that will run on integers.

    Attributes:
        node: Name of the node (the source layer's name).
        op_type: Conv, ConvTranspose, Gemm or MatMul.
        input: Name of the activation it reads, a key of `Plan.activations`.
        output: Name of its output value.
        weight: Name of the float weight initializer; None when the weight is computed.
        weight_axis: Output-channel axis of the weight (Conv 0, ConvTranspose 1, Gemm 0 or 1).
        weight_bits: Width of the weight codes.
        granularity: How fine the weight scales are. `group`: equal scales within each of `groups`
            runs of output channels, still stored per channel.
        groups: Convolution groups; 1 otherwise.
    """

    node: str
    op_type: str
    input: str
    output: str
    weight: str | None
    weight_axis: int
    weight_bits: int = 8
    granularity: Granularity = "channel"
    groups: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that will be quantized in one model for one target.

    Attributes:
        target: The policy it follows; `any` for `qconvert calibrate`.
        layers: In topological order.
        activations: Value name → how it is quantized; every name a scale is wanted for.
        ties: Groups of value names that share one scale.
        kept_float: Node name → why it stays float, for operators the policy could quantize.
        every_reader: Whether everything that reads a quantized activation reads its dequantized
            form (an integer graph), or the planned layers alone.
    """

    target: str
    layers: tuple[PlannedLayer, ...]
    activations: Mapping[str, ActivationSpec]
    ties: tuple[tuple[str, ...], ...] = ()
    kept_float: Mapping[str, str] = field(default_factory=dict)
    every_reader: bool = False

"""What a target accepts, what the user asks for, and the plan that follows from both.

`Policy` is a target's table of facts: data, no code paths. `Scheme` is the user's request. The
planner (`qconvert.passes.planning`) makes a `Plan` of the two for one model; calibration finds
scales for what the plan names, and `qconvert.passes.insert_qdq` writes it into the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from qconvert.report import Report

__all__ = [
    "ActivationSpec",
    "Fusion",
    "Granularity",
    "LayerChoice",
    "OpRule",
    "Placement",
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


class Placement(Protocol):
    """Where a target wants its Q/DQ pairs, beyond what a table of operators can say."""

    def settle(self, model: ir.Model, plan: Plan) -> Plan:
        """Say which readers of which values are quantized, given a plan for every value.

        Args:
            model: The float model the plan was made for; it stays as it is.
            plan: With a wish for every value that could be quantized.

        Returns:
            A plan with `uses`, and with `observed` values taken out of its activations.
        """

    def arrange(self, model: ir.Model, report: Report) -> None:
        """Remove, in a model that came with its own pairs, those the target has no place for."""


@dataclass(frozen=True, slots=True)
class Fusion:
    """Activation functions that a target computes within the operator in front of them.

    Attributes:
        layers: Operators they follow; `*`: every operator of the table.
        activations: The activation functions.
        add: Whether the Add of another branch may stand between a layer and its activation.
    """

    layers: tuple[str, ...]
    activations: tuple[str, ...]
    add: bool = False

    @override
    def __str__(self) -> str:
        front = "any of these" if self.layers == ("*",) else ", ".join(self.layers)
        return f"{front} + {'[Add +] ' if self.add else ''}{', '.join(self.activations)}"


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
        output_bits: Width of what leaves an integer graph, for the user or for float operators;
            None: as every activation.
        bias_int32: Whether biases are int32 at scale input * weight.
        every_value: Whether a scale is wanted for every float value, between a layer and its
            activation function too (TensorRT's calibration cache, `qconvert calibrate`).
        free_placement: Whether Q/DQ nodes may stand anywhere: those a model brings are left alone.
        rounds_away: Whether int8 activations are rounded half away from zero and stop at -127, as
            C code does it, not half to even and at -128 as QuantizeLinear does.
        log2_bits: Widths of weights whose codes are exponents; empty: it has none.
        fused: What runs as one operator: nothing is rounded within it.
        placement: Rules that depend on more than the operator; None: the table says it all.
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
    log2_bits: frozenset[int] = frozenset()
    fused: tuple[Fusion, ...] = (Fusion(("*",), ("Relu", "Clip")),)
    placement: Placement | None = None
    output_bits: int | None = None


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """What the user wants of some layers; None: nothing in particular.

    Attributes:
        keep_float: Whether they stay float.
        weight_bits: Width of their weights.
        activation_bits: Width of their inputs.
        log2_weights: Whether codes of their weights are exponents.
    """

    keep_float: bool | None = None
    weight_bits: int | None = None
    activation_bits: int | None = None
    log2_weights: bool | None = None


@dataclass(frozen=True, slots=True)
class Scheme:
    """What the user asks for.

    Attributes:
        weight_bits: Default width of weights.
        activation_bits: Default width of activations.
        asymmetric: Activations get a zero point.
        unsigned: Activations that never go below 0 use codes 0..2^b-1 (`--activation-type uint8`).
        per_tensor: One scale per weight tensor.
        power_of_two: Every scale is a power of two.
        log2_weights: Codes of weights are exponents, in layers whose width there is such.
        float_layers: Glob patterns of layer names that stay float.
        layer_bits: Glob pattern → width of weights and input of the layers it matches; the last
            match wins, and wins over what follows here.
        layers: Glob pattern → what is wanted of the layers it matches; of matches, each choice
            is the last one's that makes it. They win over those for the first and last layers.
        first_layer: What is wanted of layers that no other layer with weights stands before.
        last_layer: What is wanted of layers that no other layer with weights stands behind.
        input_scales: Network input → fixed scale (camera pixels: 1/128).
        output_bits: Width of what leaves an integer graph; None: the target's.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    asymmetric: bool = False
    unsigned: bool = False
    per_tensor: bool = False
    power_of_two: bool = False
    log2_weights: bool = False
    float_layers: tuple[str, ...] = ()
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    layers: Mapping[str, LayerChoice] = field(default_factory=dict)
    first_layer: LayerChoice = LayerChoice()
    last_layer: LayerChoice = LayerChoice()
    input_scales: Mapping[str, float] = field(default_factory=dict)
    output_bits: int | None = None


@dataclass(frozen=True, slots=True)
class ActivationSpec:
    """How one activation is to be quantized.

    Attributes:
        bits: Width of its codes.
        asymmetric: Whether it gets a zero point.
        unsigned: Whether codes are 0..2^b-1.
        fixed_scale: The scale the user gave; None: calibration finds it.
        result: Whether it leaves the integer graph, at a width of the target's own: whatever
            width it was calibrated at, its range is what counts.
    """

    bits: int = 8
    asymmetric: bool = False
    unsigned: bool = False
    fixed_scale: float | None = None
    result: bool = False


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
        log2: Whether the weight's codes are exponents.
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
    log2: bool = False


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
        power_of_two: Whether every scale is a power of two.
        uses: Value name → the readers (node name, input index) that read its dequantized form;
            empty: `every_reader` decides.
        observed: Value name → how it would be quantized: it gets a scale that is written down
            (as a pair nobody reads), and is computed with in float.
    """

    target: str
    layers: tuple[PlannedLayer, ...]
    activations: Mapping[str, ActivationSpec]
    ties: tuple[tuple[str, ...], ...] = ()
    kept_float: Mapping[str, str] = field(default_factory=dict)
    every_reader: bool = False
    power_of_two: bool = False
    uses: Mapping[str, frozenset[tuple[str, int]]] = field(default_factory=dict)
    observed: Mapping[str, ActivationSpec] = field(default_factory=dict)

    @property
    def scaled(self) -> Mapping[str, ActivationSpec]:
        """Every value that gets a scale: what is quantized, then what is observed."""
        return {**self.activations, **self.observed}

"""The effective configuration of a run, and its TOML form.

Every field is a long option of the command line with dashes for underscores (`weight_bits` is
`--weight-bits` and the TOML key `weight-bits`; `float_layers` is `--float`). A bundle keeps its
recipe as `qconvert.toml`, so that `qconvert convert --config qconvert.toml MODEL --calib DATA
-o DIR` repeats the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, get_args

import tomli_w

from qconvert.content import read_toml
from qconvert.errors import UsageError
from qconvert.plan import LayerChoice, Scheme
from qconvert.recipe_values import (
    LOG2_WIDTH,
    WIDTHS,
    kind,
    layer_choice,
    native,
    one_of,
    plain,
    within,
)
from qconvert.source import DarknetBn, ReadOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["METHODS", "PREPROCESS_FLAGS", "TARGETS", "TARGET_OPTIONS", "Effort", "Method", "Recipe"]

TARGETS: Final = ("ncnn", "tensorrt", "raw", "onnx")
Method: TypeAlias = Literal[
    "minmax", "moving-average", "percentile", "kl", "mse", "aciq", "admm", "easyquant"
]
METHODS: Final = get_args(Method)
Effort: TypeAlias = Literal["fast", "default", "best"]
AciqPrior: TypeAlias = Literal["auto", "gauss", "laplace", "ncnn"]
TARGET_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "ncnn": ("fp16", "relaxed_range", "shape_hints", "ncnn_version"),
    "tensorrt": ("trt_version", "cut_heads", "emit"),
    "raw": (
        "requantize",
        "multiplier_bits",
        "bias_bits",
        "accumulator_bits",
        "output_bits",
        "integer_only",
        "golden",
        "accumulators",
        "emit",
        "layout",
    ),
    "onnx": ("keep_functions",),
}
"""Target → the options that it knows and not every other target does."""
PREPROCESS_FLAGS: Final = ("size", "color", "mean", "norm", "resize")
"""Preprocessing keys that are options of the command line too."""
_OPTION_NAMES: Final = tuple(dict.fromkeys(chain.from_iterable(TARGET_OPTIONS.values())))
_MACHINE: Final = frozenset({"jobs"})  # says how fast, never what: not part of a repeatable run


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what comes out, besides the files that go in.

    Attributes:
        to: Target; None where a command has none (`calibrate`).
        bits: Width of weights and activations that have no width of their own.
        weight_bits: Width of weights; None: `bits`.
        activation_bits: Width of activations; None: `bits`.
        method: How thresholds are found, one of `METHODS`.
        effort: How long the search may take.
        eq_mode: `paper` follows arXiv 2006.16669 to the letter.
        eq_init: Where the search starts; None: what works best.
        eq_rounds: Most rounds of the alternating search; None: what works best.
        percentile: Share of magnitudes that `--method percentile` keeps, in percent.
        averaging: Weight of each new sample for `--method moving-average`.
        aciq_prior: Distribution that `--method aciq` takes values to have; `auto`: per tensor
            whichever loses least, `ncnn`: what ncnn2table does.
        search_images: Images the scale search looks at.
        equalize: Even out channel ranges between layers first; None: where it is known to help,
            when a conversion searches scales by `easyquant`.
        bias_correction: Correct biases for the mean error of rounding.
        refit: Fit weights and biases again to rounded inputs; None: as `effort` has it.
        rounding: `nearest`, or `optimal` to choose how each weight rounds; None: as `effort` has
            it.
        asymmetric: Activations get a zero point.
        activation_type: `uint8` gives activations that are never negative codes 0..255.
        per_tensor: One scale per weight tensor.
        power_of_two: Every scale is a power of two.
        log2_weights: Weights are powers of two but for one scale: 4-bit exponents, unless
            `weight_bits` says other.
        float_layers: Glob patterns of layers that stay float (`--float`).
        layer_bits: Glob pattern → width.
        first_layer: Width of the layers that read the network's inputs, or `float`.
        last_layer: Width of the layers that make its outputs, or `float`.
        layer: Glob pattern → section of the configuration: `float`, `bits`, `weight-bits`,
            `activation-bits`, `log2-weights`.
        input_scale: Network input → fixed scale.
        input_shape: Network input → shape that replaces the declared one.
        preprocess: Preprocessing keys (`size`, `color`, `mean`, `norm`, `resize`, ...).
        simplify: Whether onnxsim cleans ONNX models.
        darknet_bn: Whose batch normalization formula a Darknet model follows.
        detection_output: Whether decoding and NMS are appended to detection heads.
        min_cosine: Least cosine to the float model on every output; None: reported, not judged.
        seed: For random inputs and sampling.
        jobs: Threads; 0: one per core.
        options: What only some targets know (`fp16`, `relaxed_range`, ...).
    """

    to: str | None = None
    bits: int = 8
    weight_bits: int | None = None
    activation_bits: int | None = None
    method: Method = "easyquant"
    effort: Effort = "default"
    eq_mode: Literal["gram", "paper"] = "gram"
    eq_init: Literal["max", "kl"] | None = None
    eq_rounds: int | None = None
    percentile: float = 99.99
    averaging: float = 0.1
    aciq_prior: AciqPrior = "auto"
    search_images: int = 50
    equalize: bool | None = None
    bias_correction: bool = False
    refit: bool | None = None
    rounding: Literal["nearest", "optimal"] | None = None
    asymmetric: bool = False
    activation_type: Literal["int8", "uint8"] = "int8"
    per_tensor: bool = False
    power_of_two: bool = False
    log2_weights: bool = False
    float_layers: tuple[str, ...] = ()
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    first_layer: str | None = None
    last_layer: str | None = None
    layer: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    input_scale: Mapping[str, float] = field(default_factory=dict)
    input_shape: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    simplify: bool = True
    darknet_bn: DarknetBn = "alexeyab"
    detection_output: bool = False
    min_cosine: float | None = None
    seed: int = 0
    jobs: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._know_choices()
        self._know_figures()
        self._know_options()
        assert self.scheme is not None  # sections that make no sense are refused here

    def _know_choices(self) -> None:
        """Refuse words and widths that are not on offer."""
        one_of("to", self.to, (None, *TARGETS))
        one_of("method", self.method, METHODS)
        one_of("effort", self.effort, get_args(Effort))
        one_of("aciq-prior", self.aciq_prior, get_args(AciqPrior))
        one_of("eq-init", self.eq_init, (None, "max", "kl"))
        one_of("eq-mode", self.eq_mode, ("gram", "paper"))
        one_of("rounding", self.rounding, (None, "nearest", "optimal"))
        one_of("activation-type", self.activation_type, ("int8", "uint8"))
        one_of("darknet-bn", self.darknet_bn, get_args(DarknetBn))
        widths = {
            "bits": self.bits,
            "weight-bits": self.weight_bits,
            "activation-bits": self.activation_bits,
            **{f"layer-bits {name}": width for name, width in self.layer_bits.items()},
        }
        for option, width in widths.items():
            one_of(option, width, (None, *WIDTHS))
        ends = (None, "float", *map(str, WIDTHS))
        one_of("first-layer", self.first_layer, ends)
        one_of("last-layer", self.last_layer, ends)

    def _know_figures(self) -> None:
        """Refuse numbers that are out of range."""
        for option, least, figure, most in (
            ("seed", 0, self.seed, None),
            ("jobs", 0, self.jobs, None),
            ("eq-rounds", 1, self.eq_rounds, None),
            ("search-images", 1, self.search_images, None),
            ("percentile", 50, self.percentile, 100),
            ("averaging", 0.001, self.averaging, 1),
            ("min-cosine", -1, self.min_cosine, 1),
        ):
            within(option, least, figure, most)
        for name, scale in self.input_scale.items():
            if not 0 < scale < float("inf"):
                raise UsageError(f"--input-scale {name} is {scale}", fix="give a number above 0")
        for name, shape in self.input_shape.items():
            if not shape or min(shape) < 1:
                raise UsageError(
                    f"--input-shape {name} is {list(shape)}", fix="give sizes of 1 and above"
                )

    def _know_options(self) -> None:
        """Refuse options of other targets: an option without effect is a misunderstanding."""
        if self.to is None:
            return
        foreign = sorted(set(self.options) - set(TARGET_OPTIONS[self.to]))
        if foreign:
            owners = [name for name, known in TARGET_OPTIONS.items() if foreign[0] in known]
            known = ", ".join(f"--{_key(name)}" for name in TARGET_OPTIONS[self.to])
            raise UsageError(
                f"--{_key(foreign[0])} is no option of the target '{self.to}'",
                why=f"it belongs to {' and '.join(owners)}"
                if owners
                else f"it has {known or 'none'}",
                fix="leave it out",
            )

    @property
    def scheme(self) -> Scheme:
        """The quantization the user asks for."""
        return Scheme(
            weight_bits=self.weight_bits or (LOG2_WIDTH if self.log2_weights else self.bits),
            activation_bits=self.activation_bits or self.bits,
            asymmetric=self.asymmetric,
            unsigned=self.activation_type == "uint8",
            per_tensor=self.per_tensor,
            power_of_two=self.power_of_two,
            log2_weights=self.log2_weights,
            float_layers=self.float_layers,
            layer_bits=self.layer_bits,
            layers={
                glob: layer_choice(f'[layer."{glob}"]', section)
                for glob, section in self.layer.items()
            },
            first_layer=_end(self.first_layer),
            last_layer=_end(self.last_layer),
            input_scales=self.input_scale,
            output_bits=self.options.get("output_bits"),
        )

    @property
    def reading(self) -> ReadOptions:
        """How to read the model."""
        return ReadOptions(
            input_shapes=self.input_shape,
            simplify=self.simplify,
            darknet_bn=self.darknet_bn,
            detection_output=self.detection_output,
            seed=self.seed,
        )

    def override(self, **changes: Any) -> Self:  # noqa: ANN401 - values of many fields
        """A copy with every change that is not None; dictionaries are merged key by key."""
        given: dict[str, Any] = {}
        for name, value in changes.items():
            if value is None:
                continue
            before = getattr(self, name)
            given[name] = {**before, **value} if isinstance(before, dict) else value
        return replace(self, **given)

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Read a recipe.

        Raises:
            ModelFormatError: If the file is missing or not TOML.
            UsageError: If a key is unknown or a value does not fit.
        """
        fix = "give a TOML file, e.g. the qconvert.toml of a bundle"
        document = read_toml(path, "the configuration", fix=fix)
        document = _as_fields(document)
        known = {_key(entry.name): entry.name for entry in fields(cls)}
        unknown = sorted(set(document) - set(known))
        if unknown:
            raise UsageError(
                f"unknown key '{unknown[0]}'",
                at=str(path),
                why=f"a configuration holds {', '.join(sorted(known))}",
                fix="correct or remove it; models and data stand on the command line",
            )
        values = {known[key]: native(value) for key, value in document.items()}
        kinds = {entry.name: str(entry.type) for entry in fields(cls)}
        for name, value in values.items():
            fits, wanted = kind(kinds[name])
            if not fits(value):
                raise UsageError(
                    f"the value of '{_key(name)}' does not fit",
                    at=str(path),
                    why=f"it is {value!r}, and should be {wanted}",
                    fix="correct it",
                )
        try:
            return cls(**values)
        except UsageError as error:
            error.at = error.at or str(path)
            raise

    def to_toml(self) -> str:
        """The recipe as TOML: every field that decides the result, in the order of the fields."""
        document: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name in _MACHINE or value is None or value in ({}, ()):
                continue
            if entry.name == "options":
                value = {_key(name): option for name, option in value.items()}
            document[_key(entry.name)] = plain(value)
        values = {key: value for key, value in document.items() if not isinstance(value, dict)}
        return tomli_w.dumps(values | document)


def _end(wanted: str | None) -> LayerChoice:
    """What `--first-layer` or `--last-layer` asks for."""
    if wanted is None or wanted == "float":
        return LayerChoice(keep_float=None if wanted is None else True)
    return LayerChoice(weight_bits=int(wanted), activation_bits=int(wanted))


def _as_fields(document: dict[str, Any]) -> dict[str, Any]:
    """A configuration in which options that stand there as flags are where the fields are."""
    given = dict(document)
    if isinstance(given.get("float"), str):
        given["float"] = [given["float"]]
    for end in ("first-layer", "last-layer"):
        if type(given.get(end)) is int:
            given[end] = str(given[end])
    if given.get("method") == "eq":
        given["method"] = "easyquant"
    if isinstance(given.get("no-simplify"), bool):
        given["simplify"] = not given.pop("no-simplify")
    for table, names in (("options", _OPTION_NAMES), ("preprocess", PREPROCESS_FLAGS)):
        loose = {name: given.pop(_key(name)) for name in names if _key(name) in given}
        if isinstance(given.get(table, {}), dict):
            given[table] = {**given.get(table, {}), **loose}
    if isinstance(given["options"], dict):
        given["options"] = {key.replace("-", "_"): v for key, v in given["options"].items()}
    return given


def _key(name: str) -> str:
    """A field's name as a TOML key, which is its long option without the leading dashes."""
    return "float" if name == "float_layers" else name.replace("_", "-")

"""The options that several commands share, each spelled once."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from qconvert.backends import BACKENDS
from qconvert.cli import parse
from qconvert.dataset.preprocessing import read_keys
from qconvert.errors import UsageError
from qconvert.recipe import METHODS, TARGET_OPTIONS, Recipe

__all__ = [
    "AciqPrior",
    "ActivationBits",
    "ActivationType",
    "Asymmetric",
    "Averaging",
    "BiasCorrection",
    "Bits",
    "Calib",
    "Color",
    "Config",
    "DarknetBn",
    "Data",
    "DetectionOutput",
    "Effort",
    "EqInit",
    "EqMode",
    "EqRounds",
    "Equalization",
    "Files",
    "FirstLayer",
    "Float",
    "Force",
    "InputScale",
    "InputShape",
    "Jobs",
    "Json",
    "Labels",
    "LastLayer",
    "LayerBits",
    "Log2Weights",
    "Mean",
    "Method",
    "NoSimplify",
    "Norm",
    "Output",
    "PerTensor",
    "Percentile",
    "PowerOfTwo",
    "Preprocess",
    "Quiet",
    "Refit",
    "Resize",
    "Rounding",
    "SearchImages",
    "Seed",
    "Size",
    "To",
    "WeightBits",
    "preprocessing",
    "recipe",
]

_MODEL, _DATA, _QUANT, _SEARCH = "Model", "Data", "Quantization", "Search"

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="MODEL [WEIGHTS]",
        help="deploy.prototxt x.caffemodel · x.cfg x.weights · x.param x.bin · x.onnx",
        show_default=False,
    ),
]
To = Annotated[str | None, typer.Option("--to", help=f"Target: {', '.join(BACKENDS)}.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Where the result goes.")]
Config = Annotated[
    Path | None, typer.Option(help="TOML file with any of these options; flags win over it.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
Jobs = Annotated[
    int | None, typer.Option(min=0, help="Threads; 0 takes every core.", rich_help_panel=_DATA)
]
Seed = Annotated[int | None, typer.Option(min=0, help="For random inputs and sampling.")]

InputShape = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=1,3,224,224", help="Replace a shape.", rich_help_panel=_MODEL),
]
NoSimplify = Annotated[
    bool | None,
    typer.Option("--no-simplify", help="Read ONNX without onnxsim.", rich_help_panel=_MODEL),
]
DarknetBn = Annotated[
    str | None,
    typer.Option(
        help="Batch normalization as alexeyab (default), pjreddie or opencv computes it.",
        rich_help_panel=_MODEL,
    ),
]
DetectionOutput = Annotated[
    bool | None,
    typer.Option(
        "--detection-output",
        help="Append decoding and NMS to detection heads.",
        rich_help_panel=_MODEL,
    ),
]

Calib = Annotated[
    Path | None,
    typer.Option(
        metavar="DATA",
        help="Folder of images, .txt list, .npy or .npz to calibrate with.",
        rich_help_panel=_DATA,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DATA", help="Folder of images, .txt list, .npy or .npz.", rich_help_panel=_DATA
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(help="File name and class index per line.", rich_help_panel=_DATA),
]
Preprocess = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json",
        help="Keys size, color, mean, norm, resize, ...",
        rich_help_panel=_DATA,
    ),
]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="Image size.", rich_help_panel=_DATA)]
Color = Annotated[str | None, typer.Option(help="rgb, bgr or gray.", rich_help_panel=_DATA)]
Mean = Annotated[
    str | None,
    typer.Option(metavar="104,117,123", help="Subtracted.", rich_help_panel=_DATA),
]
Norm = Annotated[
    str | None,
    typer.Option(metavar="1,1,1", help="Multiplied, after the mean.", rich_help_panel=_DATA),
]
Resize = Annotated[
    str | None,
    typer.Option(help="center-crop, squash or letterbox.", rich_help_panel=_DATA),
]

Bits = Annotated[int | None, typer.Option(help="Width: 2 to 8, or 16. [8]", rich_help_panel=_QUANT)]
WeightBits = Annotated[int | None, typer.Option(help="Width of weights.", rich_help_panel=_QUANT)]
ActivationBits = Annotated[
    int | None, typer.Option(help="Width of activations.", rich_help_panel=_QUANT)
]
Float = Annotated[
    list[str] | None,
    typer.Option("--float", metavar="GLOB", help="Layers that stay float.", rich_help_panel=_QUANT),
]
LayerBits = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB=N", help="Width of some layers.", rich_help_panel=_QUANT),
]
FirstLayer = Annotated[
    str | None,
    typer.Option(metavar="N|float", help="Width of the first layers.", rich_help_panel=_QUANT),
]
LastLayer = Annotated[
    str | None,
    typer.Option(metavar="N|float", help="Width of the last layers.", rich_help_panel=_QUANT),
]
InputScale = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=S", help="Fixed scale of a network input.", rich_help_panel=_QUANT),
]
PerTensor = Annotated[
    bool | None,
    typer.Option("--per-tensor", help="One scale per weight.", rich_help_panel=_QUANT),
]
PowerOfTwo = Annotated[
    bool | None,
    typer.Option("--power-of-two", help="Every scale is a power of two.", rich_help_panel=_QUANT),
]
Log2Weights = Annotated[
    bool | None,
    typer.Option(
        "--log2-weights",
        help="Weights are powers of two: exponents of 4 bits, or --weight-bits 2 to 6 (raw, onnx).",
        rich_help_panel=_QUANT,
    ),
]
Asymmetric = Annotated[
    bool | None,
    typer.Option("--asymmetric", help="Activations get a zero point.", rich_help_panel=_QUANT),
]
ActivationType = Annotated[
    str | None,
    typer.Option(
        help="int8, or uint8 for activations that are never negative.", rich_help_panel=_QUANT
    ),
]
Method = Annotated[
    str | None,
    typer.Option(help=f"{', '.join(METHODS)} (short: eq). [easyquant]", rich_help_panel=_SEARCH),
]
Effort = Annotated[str | None, typer.Option(help="fast, default or best.", rich_help_panel=_SEARCH)]
EqMode = Annotated[
    str | None,
    typer.Option(help="paper follows arXiv 2006.16669 exactly.", rich_help_panel=_SEARCH),
]
EqInit = Annotated[
    str | None, typer.Option(help="Where the search starts.", rich_help_panel=_SEARCH)
]
EqRounds = Annotated[
    int | None, typer.Option(min=1, help="Most rounds of the search.", rich_help_panel=_SEARCH)
]
Percentile = Annotated[
    float | None,
    typer.Option(
        min=50, max=100, help="Kept share for percentile, in percent.", rich_help_panel=_SEARCH
    ),
]
Averaging = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        max=1,
        help="Weight of each new sample for moving-average. [0.1]",
        rich_help_panel=_SEARCH,
    ),
]
AciqPrior = Annotated[
    str | None,
    typer.Option(
        help="Distribution for aciq: gauss, laplace, ncnn (as ncnn2table), or auto. [auto]",
        rich_help_panel=_SEARCH,
    ),
]
SearchImages = Annotated[
    int | None, typer.Option(min=1, help="Images the search uses. [50]", rich_help_panel=_SEARCH)
]


Equalization = Annotated[
    bool | None,
    typer.Option(
        "--equalize/--no-equalize",
        help="Even out channel ranges first. [with easyquant]",
        rich_help_panel=_SEARCH,
    ),
]
BiasCorrection = Annotated[
    bool | None,
    typer.Option(
        "--bias-correction",
        help="Correct biases for the mean error of rounding (easyquant).",
        rich_help_panel=_SEARCH,
    ),
]
Refit = Annotated[
    bool | None,
    typer.Option(
        "--refit/--no-refit",
        help="Fit weights and biases again to rounded inputs (easyquant). [but for --effort fast]",
        rich_help_panel=_SEARCH,
    ),
]
Rounding = Annotated[
    str | None,
    typer.Option(
        help="nearest, or optimal: choose how each weight rounds (easyquant). [optimal, but for "
        "--effort fast]",
        rich_help_panel=_SEARCH,
    ),
]


def preprocessing(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Preprocessing keys from `--preprocess FILE` and from flags; flags win.

    Args:
        given: A command's arguments by name.

    Returns:
        The keys; None when neither file nor flag is given.
    """
    file = given.get("preprocess")
    keys: dict[str, Any] = {} if file is None else read_keys(file)
    if given.get("size") is not None:
        keys["size"] = parse.size(given["size"])
    for name in ("mean", "norm"):
        if given.get(name) is not None:
            keys[name] = parse.numbers(f"--{name}", given[name])
    keys.update({name: given[name] for name in ("color", "resize") if given.get(name) is not None})
    return keys or None


def recipe(given: Mapping[str, Any]) -> Recipe:
    """The effective configuration: defaults, then `--config`, then flags.

    Args:
        given: A command's arguments by name (its `locals()`): arguments that are no recipe's
            business are passed over, a flag that was not given is None.

    Raises:
        UsageError: If a value does not fit.
    """
    config = given.get("config")
    base = Recipe() if config is None else Recipe.from_toml(config)
    changes = {entry.name: given[entry.name] for entry in fields(Recipe) if entry.name in given}
    given = {**given, "emit": parse.words(given.get("emit") or ()) or None}
    changes |= {
        "method": "easyquant" if given.get("method") == "eq" else given.get("method"),
        "float_layers": tuple(given.get("float_") or ()) or None,
        "layer_bits": parse.widths(given.get("layer_bits") or ()) or None,
        "input_scale": parse.scales(given.get("input_scale") or ()) or None,
        "input_shape": parse.shapes(given.get("input_shape") or ()) or None,
        "preprocess": preprocessing(given),
        "simplify": False if given.get("no_simplify") else None,
        "options": {
            name: given[name]
            for names in TARGET_OPTIONS.values()
            for name in names
            if given.get(name) is not None
        },
    }
    try:
        return base.override(**changes)
    except TypeError as error:
        raise UsageError("an option's value does not fit", why=str(error)) from error

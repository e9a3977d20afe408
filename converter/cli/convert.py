"""`qconvert convert`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from qconvert.cli import options as o
from qconvert.cli import tables
from qconvert.cli.run import Session
from qconvert.pipeline.convert import convert as run
from qconvert.pipeline.job import Job
from qconvert.pipeline.usage import peak_memory_mb

__all__ = ["convert"]

_TARGET = "Target"


def convert(
    files: o.Files,
    output: o.Output,
    to: o.To = None,
    calib: o.Calib = None,
    encodings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Scales from an earlier run or another tool.",
            rich_help_panel="Data",
        ),
    ] = None,
    preprocess: o.Preprocess = None,
    size: o.Size = None,
    color: o.Color = None,
    mean: o.Mean = None,
    norm: o.Norm = None,
    resize: o.Resize = None,
    bits: o.Bits = None,
    weight_bits: o.WeightBits = None,
    activation_bits: o.ActivationBits = None,
    first_layer: o.FirstLayer = None,
    last_layer: o.LastLayer = None,
    float_: o.Float = None,
    layer_bits: o.LayerBits = None,
    input_scale: o.InputScale = None,
    per_tensor: o.PerTensor = None,
    power_of_two: o.PowerOfTwo = None,
    log2_weights: o.Log2Weights = None,
    asymmetric: o.Asymmetric = None,
    activation_type: o.ActivationType = None,
    method: o.Method = None,
    effort: o.Effort = None,
    eq_mode: o.EqMode = None,
    eq_init: o.EqInit = None,
    eq_rounds: o.EqRounds = None,
    percentile: o.Percentile = None,
    averaging: o.Averaging = None,
    aciq_prior: o.AciqPrior = None,
    search_images: o.SearchImages = None,
    equalize: o.Equalization = None,
    bias_correction: o.BiasCorrection = None,
    refit: o.Refit = None,
    rounding: o.Rounding = None,
    input_shape: o.InputShape = None,
    no_simplify: o.NoSimplify = None,
    darknet_bn: o.DarknetBn = None,
    detection_output: o.DetectionOutput = None,
    fp16: Annotated[
        bool | None,
        typer.Option("--fp16", help="Store float weights as fp16 (ncnn).", rich_help_panel=_TARGET),
    ] = None,
    relaxed_range: Annotated[
        bool | None,
        typer.Option(
            "--relaxed-range",
            help="Below 8 bits, let ncnn activations reach 127.",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    shape_hints: Annotated[
        bool | None,
        typer.Option(
            "--shape-hints", help="Write every blob's shape (ncnn).", rich_help_panel=_TARGET
        ),
    ] = None,
    ncnn_version: Annotated[
        str | None,
        typer.Option(
            metavar="YYYYMMDD",
            help="Oldest ncnn that has to run the bundle.",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    keep_functions: Annotated[
        bool | None,
        typer.Option(
            "--keep-functions",
            help="Leave detection heads as functions (onnx).",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    trt_version: Annotated[
        str | None,
        typer.Option(
            "--trt-version",
            metavar="8.6.1",
            help="The TensorRT that builds the engine (tensorrt; required).",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    cut_heads: Annotated[
        bool | None,
        typer.Option(
            "--cut-heads",
            help="End the network before detection heads (tensorrt).",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    emit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND,...",
            help="More files: cache, qdq, ppq, mqbench, nvdla (tensorrt); "
            "mem, bin, coe, mif, c (raw).",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    requantize: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="How sums are rounded: half_up, half_even, half_away, tflite_double (raw).",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    multiplier_bits: Annotated[
        int | None,
        typer.Option(help="Width of multipliers: 31, 16 or 15 (raw).", rich_help_panel=_TARGET),
    ] = None,
    bias_bits: Annotated[
        int | None,
        typer.Option(help="Width of biases: 32 or 16 (raw).", rich_help_panel=_TARGET),
    ] = None,
    accumulator_bits: Annotated[
        int | None,
        typer.Option(
            help="Width of sums, 8 to 62; what the network needs if not given (raw).",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    output_bits: Annotated[
        int | None,
        typer.Option(
            help="Width of what leaves the integer graph: 16 if not given (raw).",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    integer_only: Annotated[
        bool | None,
        typer.Option(
            "--integer-only",
            help="Refuse a network that is not integer throughout (raw).",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    golden: Annotated[
        int | None,
        typer.Option(help="Inputs to write golden vectors of (raw).", rich_help_panel=_TARGET),
    ] = None,
    accumulators: Annotated[
        bool | None,
        typer.Option(
            "--accumulators",
            help="Write raw sums with the golden vectors (raw).",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="Order of codes in emitted files: oihw, ohwi, hwio, pe:P or pe:PxS (raw).",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    min_cosine: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Fail when an output is further from the float model."),
    ] = None,
    config: o.Config = None,
    seed: o.Seed = None,
    jobs: o.Jobs = None,
    force: o.Force = False,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Leave a bundle that failed verification.")
    ] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Convert a model into a verified (quantized) bundle.

    With calibration data the bundle is quantized, without it is float.
    """
    given = dict(locals())
    started = time.monotonic()
    session = Session(json, quiet)
    recipe = o.recipe(given)
    job = Job(tuple(files), output, recipe, calib, encodings, force, keep_failed)
    result = run(job, session.report, session.bars)
    tables.conversion(session.screen, result)
    session.finish(
        {
            **result.to_json(),
            "seconds": time.monotonic() - started,
            "peak_memory_mb": peak_memory_mb(),
        }
    )

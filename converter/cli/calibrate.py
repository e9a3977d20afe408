"""`qconvert calibrate`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from qconvert.cli import options as o
from qconvert.cli import tables
from qconvert.cli.run import Session
from qconvert.pipeline.calibrate import calibrate as run
from qconvert.pipeline.job import Job
from qconvert.pipeline.usage import peak_memory_mb

__all__ = ["calibrate"]


def calibrate(
    files: o.Files,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.json", help="The encodings file.")
    ],
    calib: o.Calib = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="Calibrate only what this target needs; else for every target."),
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
    float_: o.Float = None,
    layer_bits: o.LayerBits = None,
    first_layer: o.FirstLayer = None,
    last_layer: o.LastLayer = None,
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
    bias_correction: o.BiasCorrection = None,
    refit: o.Refit = None,
    rounding: o.Rounding = None,
    input_shape: o.InputShape = None,
    no_simplify: o.NoSimplify = None,
    darknet_bn: o.DarknetBn = None,
    detection_output: o.DetectionOutput = None,
    config: o.Config = None,
    seed: o.Seed = None,
    jobs: o.Jobs = None,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Find scales once, for any number of conversions.

    They are kept as JSON; use them with `convert --encodings FILE`.
    """
    given = dict(locals())
    started = time.monotonic()
    session = Session(json, quiet)
    recipe = o.recipe(given)
    job = Job(tuple(files), output, recipe, calib, force=force)
    result = run(job, session.report, session.bars)
    tables.calibration(session.screen, output, result)
    session.finish(
        {
            "encodings": str(output),
            **result.to_json(),
            "seconds": time.monotonic() - started,
            "peak_memory_mb": peak_memory_mb(),
        }
    )

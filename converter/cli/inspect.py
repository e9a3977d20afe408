"""`qconvert inspect`."""

from qconvert.cli import options as o
from qconvert.cli import tables
from qconvert.cli.run import Session
from qconvert.pipeline.inspect import inspect as run

__all__ = ["inspect"]


def inspect(
    files: o.Files,
    to: o.To = None,
    calib: o.Calib = None,
    preprocess: o.Preprocess = None,
    size: o.Size = None,
    color: o.Color = None,
    mean: o.Mean = None,
    norm: o.Norm = None,
    resize: o.Resize = None,
    input_shape: o.InputShape = None,
    no_simplify: o.NoSimplify = None,
    darknet_bn: o.DarknetBn = None,
    detection_output: o.DetectionOutput = None,
    bits: o.Bits = None,
    weight_bits: o.WeightBits = None,
    activation_bits: o.ActivationBits = None,
    float_: o.Float = None,
    layer_bits: o.LayerBits = None,
    first_layer: o.FirstLayer = None,
    last_layer: o.LastLayer = None,
    per_tensor: o.PerTensor = None,
    log2_weights: o.Log2Weights = None,
    asymmetric: o.Asymmetric = None,
    activation_type: o.ActivationType = None,
    equalize: o.Equalization = None,
    config: o.Config = None,
    jobs: o.Jobs = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """List layers, shapes, cost and what targets accept.

    With --to, say what will run as integers there, what stays float and why, what is fused and
    shared; with --calib too, which values are too wide for their codes. Weights may be left out.
    """
    given = dict(locals())
    session = Session(json, quiet)
    recipe = o.recipe(given)
    result = run(files, recipe, session.report, calib, session.bars)
    if not json:
        tables.inspection(session.screen, result)
    session.finish(result.to_json())

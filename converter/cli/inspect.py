"""`qconvert inspect`."""

from qconvert.cli import options as o
from qconvert.cli import tables
from qconvert.cli.run import Session
from qconvert.pipeline.inspect import inspect as run

__all__ = ["inspect"]


def inspect(
    files: o.Files,
    to: o.To = None,
    input_shape: o.InputShape = None,
    no_simplify: o.NoSimplify = None,
    darknet_bn: o.DarknetBn = None,
    detection_output: o.DetectionOutput = None,
    float_: o.Float = None,
    layer_bits: o.LayerBits = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """List layers, shapes, cost and what targets accept.

    With --to, say what will run as integers there, what stays float, and why. Weights may be left
    out.
    """
    given = dict(locals())
    session = Session(json, quiet)
    recipe = o.recipe(given)
    result = run(files, recipe, session.report)
    if not json:
        tables.inspection(session.screen, result)
    session.finish(result.to_json())

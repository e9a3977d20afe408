"""`qconvert evaluate`."""

from qconvert.cli import options as o
from qconvert.cli import tables
from qconvert.cli.run import Session
from qconvert.errors import UsageError
from qconvert.pipeline.evaluate import evaluate as run

__all__ = ["evaluate"]


def evaluate(
    files: o.Files,
    data: o.Data = None,
    labels: o.Labels = None,
    preprocess: o.Preprocess = None,
    size: o.Size = None,
    color: o.Color = None,
    mean: o.Mean = None,
    norm: o.Norm = None,
    resize: o.Resize = None,
    input_shape: o.InputShape = None,
    no_simplify: o.NoSimplify = None,
    darknet_bn: o.DarknetBn = None,
    config: o.Config = None,
    jobs: o.Jobs = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Count right answers of a model or a bundle.

    The images need labels; of a bundle, give the folder.
    """
    given = dict(locals())
    if data is None:
        raise UsageError("there is no data", fix="add --data IMAGES --labels FILE")
    session = Session(json, quiet)
    recipe = o.recipe(given)
    result = run(files, data, labels, recipe, session.report, session.bars)
    tables.evaluation(session.screen, result)
    session.finish(result.to_json())

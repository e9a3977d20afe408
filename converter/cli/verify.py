"""`qconvert verify`."""

from pathlib import Path
from typing import Annotated

import typer

from qconvert.cli import options as o
from qconvert.cli import tables
from qconvert.cli.run import Session
from qconvert.errors import UsageError
from qconvert.pipeline.engine import verify_engines
from qconvert.pipeline.table import check_table
from qconvert.pipeline.verify import verify as run

__all__ = ["verify"]


def verify(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR", help="A bundle; with --table also x.param.", show_default=False
        ),
    ],
    data: o.Data = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead, look for faults in this ncnn calibration table.",
            rich_help_panel="Data",
        ),
    ] = None,
    preprocess: o.Preprocess = None,
    size: o.Size = None,
    color: o.Color = None,
    mean: o.Mean = None,
    norm: o.Norm = None,
    resize: o.Resize = None,
    min_cosine: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Fail when an output is further from the float model."),
    ] = None,
    engine: Annotated[
        bool,
        typer.Option(
            "--engine",
            help="Build it with the target's own compiler and run that (TensorRT; needs a GPU).",
        ),
    ] = False,
    jobs: o.Jobs = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Run a bundle on its runtime and measure it.

    It is measured against its float model.

    Without --data the bundle's own reference inputs are used. Preprocessing is the bundle's,
    unless given.
    """
    given = dict(locals())
    session = Session(json, quiet)
    if table is not None:
        checked = check_table(files, table)
        tables.checked_table(session.screen, checked)
        session.finish(checked.to_json())
        return
    if len(files) != 1:
        raise UsageError(f"{len(files)} paths are given", fix="give the folder of one bundle")
    [bundle] = files
    if engine:
        built = verify_engines(bundle)
        for each in built["engines"]:
            tables.verification(session.screen, each)
        session.finish({"bundle": str(bundle), "verification": built})
        return
    result = run(
        bundle,
        data=data,
        preprocess=o.preprocessing(given),
        min_cosine=min_cosine,
        jobs=jobs or 0,
        progress=session.bars,
    )
    tables.verification(session.screen, result)
    session.finish({"bundle": str(bundle), "verification": result})

"""`qconvert formats`."""

import sys
from typing import Annotated

import typer

from qconvert.cli import options as o
from qconvert.cli import tables
from qconvert.cli.run import Session
from qconvert.pipeline.formats import as_markdown
from qconvert.pipeline.formats import formats as run

__all__ = ["formats"]


def formats(
    json: o.Json = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown page on stdout.")
    ] = False,
    quiet: o.Quiet = False,
) -> None:
    """List what is read and written, by operator."""
    session = Session(json, quiet)
    result = run()
    if markdown:
        sys.stdout.write(as_markdown(result))
        return
    if not json:
        tables.formats(session.screen, result)
    session.finish(result)

"""`qconvert formats`."""

from qconvert.cli import options as o
from qconvert.cli import tables
from qconvert.cli.run import Session
from qconvert.pipeline.formats import formats as run

__all__ = ["formats"]


def formats(json: o.Json = False, quiet: o.Quiet = False) -> None:
    """List what is read and written, by operator."""
    session = Session(json, quiet)
    result = run()
    if not json:
        tables.formats(session.screen, result)
    session.finish(result)

"""The command line: typer commands that print and exit; they decide nothing."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of the console script."""
    from qconvert.cli.app import app
    from qconvert.cli.run import guarded

    sys.exit(guarded(app, sys.argv[1:]))

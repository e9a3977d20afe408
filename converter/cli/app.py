"""The commands of `qconvert`, as typer knows them."""

from typing import Annotated

import typer

from qconvert.cli.calibrate import calibrate
from qconvert.cli.convert import convert
from qconvert.cli.evaluate import evaluate
from qconvert.cli.formats import formats
from qconvert.cli.inspect import inspect
from qconvert.cli.verify import verify
from qconvert.version import __version__

__all__ = ["app"]

app = typer.Typer(
    name="qconvert",
    help="Turn a trained CNN into a verified, quantized deployment artifact.",
    epilog="Exit codes: 0 done · 2 wrong command · 3 damaged input · 4 not expressible · "
    "5 calibration data · 6 missing runtime · 7 verification failed · 70 our bug",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        typer.echo(f"qconvert {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn a trained CNN into a verified, quantized deployment artifact."""
    del version


for _command in (convert, calibrate, verify, evaluate, inspect, formats):
    app.command()(_command)

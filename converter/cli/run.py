"""How every command runs: one report, one screen, one JSON object, one exit code."""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from qconvert.cli.screen import Bars, Screen, failure, print_json
from qconvert.errors import EXIT_BUG, EXIT_INTERRUPTED, QconvertError, UsageError
from qconvert.report import Report
from qconvert.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Session", "guarded"]


@dataclass(slots=True)
class Session:
    """What one command talks through.

    Attributes:
        json: Whether the result goes to stdout as JSON.
        quiet: Whether stderr stays silent but for errors.
    """

    json: bool
    quiet: bool = False
    report: Report = field(default_factory=Report)
    screen: Screen = field(init=False)
    bars: Bars = field(init=False)

    def __post_init__(self) -> None:
        self.screen = Screen(quiet=self.quiet)
        self.bars = Bars(self.screen)

    def finish(self, content: Mapping[str, Any]) -> None:
        """Print warnings, and the result where JSON is asked for."""
        for warning in self.report.warnings:
            self.screen.warn(warning)
        if self.json:
            print_json({**content, "warnings": list(self.report.warnings)})


def guarded(app: Callable[..., Any], arguments: Sequence[str]) -> int:
    """Run the command line and turn whatever happens into an exit code.

    Args:
        app: The typer application.
        arguments: What stands after the program's name.

    Returns:
        The exit code (see `qconvert.errors`).
    """
    try:
        return _run(app, arguments)
    except QconvertError as error:
        return _fail(error, arguments)
    except (KeyboardInterrupt, typer.Abort):
        Screen().say("interrupted; nothing was written")
        return _told(arguments, "interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        Screen().say(
            f"This is a bug in qconvert {__version__}. Please report it with the command, the "
            "model and this trace:\n" + traceback.format_exc()
        )
        return _told(arguments, f"a bug in qconvert: {type(error).__name__}: {error}", EXIT_BUG)


def _run(app: Callable[..., Any], arguments: Sequence[str]) -> int:
    """Run the command line; its exit code where typer has one.

    Raises:
        UsageError: If typer does not understand the arguments.
        KeyboardInterrupt: If the user ended the run: typer makes an exit code of it.
    """
    words = list(arguments) or ["--help"]
    try:
        result = app(args=words, prog_name="qconvert", standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        fix = f"see: {'qconvert' if context is None else context.command_path} --help"
        raise UsageError(error.format_message().rstrip("."), fix=fix) from error
    if result == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if not arguments:  # help was not asked for: the command is missing
        return UsageError.exit_code
    return result if isinstance(result, int) else 0


def _fail(error: QconvertError, arguments: Sequence[str]) -> int:
    """Show an error the way the command was asked to talk."""
    Screen().error(error)
    if "--json" in arguments:
        print_json(failure(error, error.exit_code))
    return error.exit_code


def _told(arguments: Sequence[str], what: str, code: int) -> int:
    """The exit code of an end that is no `QconvertError`, with its JSON object."""
    if "--json" in arguments:
        print_json(failure(QconvertError(what), code))
    return code

"""What the user sees: talk and progress on stderr, one JSON object on stdout."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from qconvert.errors import QconvertError

__all__ = ["Bars", "Screen", "failure", "print_json"]

JSON_VERSION: Final = 1


class Screen:
    """Talks on stderr, unless told to be quiet.

    Markup stays off: with it, rich takes `[crnn]` in a Darknet layer's name for a style.

    Args:
        quiet: Say nothing but errors.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
        self.quiet = quiet

    def say(self, line: RenderableType = "") -> None:
        """Print a line or a table."""
        if not self.quiet:
            self.console.print(line)

    def warn(self, line: str) -> None:
        """Print a warning."""
        if not self.quiet:
            self.console.print(f"warning: {line}", style="yellow")

    def error(self, error: QconvertError) -> None:
        """Print an error in its four lines."""
        first, *rest = str(error).split("\n")
        self.console.print(f"error: {first}", style="bold red")
        for line in rest:
            self.console.print(line)


class Bars:
    """Progress bars on stderr; nothing when that is not a terminal, or when quiet."""

    def __init__(self, screen: Screen) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=screen.console,
            disable=screen.quiet or not screen.console.is_terminal,
            transient=True,
        )
        self._task: Any = None

    def start(self, title: str, total: int) -> None:
        """See `qconvert.progress.Progress`."""
        self.finish()
        self._bars.start()
        self._task = self._bars.add_task(title, total=total, detail="")

    def advance(self, detail: str = "") -> None:
        """See `qconvert.progress.Progress`."""
        if self._task is not None:
            self._bars.update(self._task, advance=1, detail=detail)

    def finish(self) -> None:
        """See `qconvert.progress.Progress`."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        self._bars.stop()


def failure(error: QconvertError, code: int) -> dict[str, Any]:
    """An error as the JSON object a failed command prints."""
    return {
        "error": {
            "what": error.what,
            "at": error.at,
            "why": error.why,
            "fix": error.fix,
            "exit": code,
        },
        **error.details,
    }


def print_json(content: Mapping[str, Any]) -> None:
    """Print the one JSON object of a command on stdout; figures that are not finite are null."""
    document = {"version": JSON_VERSION, **content}
    text = json.dumps(_finite(document), ensure_ascii=False, allow_nan=False)
    # A path need not be Unicode; JSON's own escape for what is not looks like Python's.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """`value` with every number that JSON cannot hold replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value

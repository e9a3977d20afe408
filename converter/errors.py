"""Every error a user can meet, and the exit code each one owns.

    QconvertError
    ├── UsageError           2   the command is wrong, or the output folder is not empty
    ├── ModelFormatError     3   an input file is missing, damaged or not what it says
    ├── UnsupportedError     4   valid, but qconvert or the target cannot express it
    ├── CalibrationError     5   the data does not fit the model, or preprocessing is missing
    ├── MissingRuntimeError  6   a runtime that is needed is not installed
    └── VerificationError    7   the artifact does not do what the model does

Anything else that reaches the command line is our own bug (exit code 70).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "EXIT_BUG",
    "EXIT_INTERRUPTED",
    "CalibrationError",
    "MissingRuntimeError",
    "ModelFormatError",
    "Problem",
    "QconvertError",
    "UnsupportedError",
    "UsageError",
    "VerificationError",
]

EXIT_BUG: Final = 70
EXIT_INTERRUPTED: Final = 130


class QconvertError(Exception):
    """What went wrong, where, why, and what to do about it.

    Args:
        what: One line that names the trouble.
        at: File, line, layer or tensor; empty when there is no place to name.
        why: The cause or the rule that is broken.
        fix: What the user can do.
        details: More about it for programs: keys that `--json` prints beside `error`.
    """

    exit_code: ClassVar[int]

    def __init__(
        self,
        what: str,
        *,
        at: str = "",
        why: str = "",
        fix: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.at = at
        self.why = why
        self.fix = fix
        self.details = dict(details or {})

    @override
    def __str__(self) -> str:
        rows = (("at", self.at), ("why", self.why), ("fix", self.fix))
        return "\n".join([self.what, *(f"  {key}: {text}" for key, text in rows if text)])


class UsageError(QconvertError):
    """The command is wrong, or the output folder is not empty."""

    exit_code = 2


class ModelFormatError(QconvertError):
    """An input file is missing, damaged, or not what it says."""

    exit_code = 3


class CalibrationError(QconvertError):
    """The data does not fit the model, or preprocessing is missing."""

    exit_code = 5


class MissingRuntimeError(QconvertError):
    """A runtime that is needed is not installed."""

    exit_code = 6


class VerificationError(QconvertError):
    """The artifact does not do what the model does."""

    exit_code = 7


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that cannot be expressed.

    Attributes:
        what: The operator or feature, e.g. `layer type 'CTCLoss'`.
        at: The layer and its place, e.g. `layer 'loss' (deploy.prototxt:412)`.
        why: The rule it breaks; empty when it is simply unknown.
    """

    what: str
    at: str
    why: str = ""

    @override
    def __str__(self) -> str:
        return f"{self.what}, {self.at}" + (f": {self.why}" if self.why else "")


class UnsupportedError(QconvertError):
    """Valid, but qconvert or the target cannot express it.

    Carries *all* the problems of a model, so that a user learns of them in one run.
    """

    exit_code = 4

    def __init__(
        self,
        what: str,
        *,
        at: str = "",
        why: str = "",
        fix: str = "",
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(what, at=at, why=why, fix=fix)
        self.problems = tuple(problems)

    @classmethod
    def of(cls, problems: Sequence[Problem], *, who: str, fix: str) -> UnsupportedError:
        """One error for all `problems`; `who` cannot express them (e.g. `ncnn`)."""
        if len(problems) == 1:
            only = problems[0]
            what = f"{only.what} is not supported by {who}"
            return cls(what, at=only.at, why=only.why, fix=fix, problems=problems)
        return cls(
            f"{len(problems)} things in this model are not supported by {who}",
            at="; ".join(dict.fromkeys(problem.at for problem in problems)),
            why="\n       ".join(str(problem) for problem in problems),
            fix=fix,
            problems=problems,
        )

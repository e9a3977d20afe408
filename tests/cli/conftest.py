"""Running the command line in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from qconvert.cli.app import app
from qconvert.cli.run import guarded

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "samples" / "digits"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        document: dict[str, Any] = json.loads(self.out)
        return document


class Command(Protocol):
    """Runs `qconvert` with arguments."""

    def __call__(self, *arguments: str | Path) -> Outcome: ...


@pytest.fixture
def qconvert(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command line; stdout and stderr are those of the process."""

    def run(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        code = guarded(app, [str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def digits() -> Path:
    """The sample network and its images."""
    return DIGITS

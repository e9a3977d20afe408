"""What a run has to say besides its result: warnings, and what each pass did or declined.

One `Report` travels through a run as an argument. Frontends warn into it, passes record into it,
and the command line and the manifest print it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from typing_extensions import override

__all__ = ["PassNote", "Report"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PassNote:
    """One thing a pass did, or declined with a reason.

    Attributes:
        step: The pass, e.g. `fold_batchnorm`.
        node: The node it looked at.
        why_not: Why it left the node alone; None when it acted.
    """

    step: str
    node: str
    why_not: str | None = None

    def to_json(self) -> dict[str, str]:
        """As manifests have it: `why_not` is there where the pass declined."""
        row = {"step": self.step, "node": self.node}
        return row if self.why_not is None else {**row, "why_not": self.why_not}

    @override
    def __str__(self) -> str:
        if self.why_not is None:
            return f"{self.step}: '{self.node}'"
        return f"{self.step}: '{self.node}' stays: {self.why_not}"


@dataclass(slots=True)
class Report:
    """Collects what a run has to say; order is the order of events."""

    warnings: list[str] = field(default_factory=list)
    notes: list[PassNote] = field(default_factory=list)

    def warn(self, message: str) -> None:
        """Say `message` to the user once, however often it comes."""
        if message not in self.warnings:
            logger.info("warning: %s", message)
            self.warnings.append(message)

    def did(self, step: str, node: str) -> None:
        """Record that pass `step` acted on `node`."""
        self.notes.append(PassNote(step, node))

    def kept(self, step: str, node: str, why_not: str) -> None:
        """Record that pass `step` left `node` alone, and why."""
        self.notes.append(PassNote(step, node, why_not))

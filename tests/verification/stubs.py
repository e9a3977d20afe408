"""A runtime made of a function, and a listener that remembers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qconvert.quant import F32


@dataclass
class Function:
    """Runs a Python function as a network."""

    call: Callable[[Mapping[str, F32]], dict[str, F32]]
    name: str = "function 1.0"

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        return self.call(inputs)

    def close(self) -> None:
        pass


@dataclass
class Listener:
    """Remembers what it was told."""

    events: list[str] = field(default_factory=list)

    def start(self, title: str, total: int) -> None:
        self.events.append(f"{title} {total}")

    def advance(self, detail: str = "") -> None:
        self.events.append(detail)

    def finish(self) -> None:
        self.events.append("end")

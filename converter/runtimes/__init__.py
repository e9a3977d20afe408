"""Runtimes behind one small interface: onnxruntime, ncnn, the integer executor.

They serve calibration, verification and evaluation. Every runtime is opened by its own module
(`qconvert.runtimes.onnx`, `qconvert.runtimes.ncnn`) and is a `Runtime`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qconvert.quant import F32

__all__ = ["Runtime", "Tap"]

# onnxruntime reports its use to its vendor from the moment it is imported, and leaves a session
# file in the temporary folder. What somebody converts is nobody else's business; a user who wants
# it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@dataclass(frozen=True, slots=True)
class Tap:
    """A value read from within a running network.

    Attributes:
        values: In the runtime's own shape.
        codes: Whether they are integer codes rather than real numbers.
    """

    values: F32
    codes: bool


class Runtime(Protocol):
    """Something that runs a network on one input at a time."""

    @property
    def name(self) -> str:
        """Name and version, e.g. `ncnn 1.0.20261020`."""

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Run the network once.

        Args:
            inputs: Network input name → float32 array [1, ...].

        Returns:
            Network output name → float32 array [1, ...].
        """

    def close(self) -> None:
        """Release what the runtime holds (processes, scratch files)."""

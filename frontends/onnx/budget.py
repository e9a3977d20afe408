"""What reading one file may cost: time that grows with the file, memory that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qconvert.frontends.onnx.sandbox import Limits

if TYPE_CHECKING:
    from qconvert.frontends.onnx.sandbox import Answer, Sandbox

__all__ = ["Budget"]

_LEAST_SECONDS: Final = 5.0
_MOST_SECONDS: Final = 600.0
_BYTES_A_SECOND: Final = 1 << 16
"""A graph is worked out at three to four times this speed."""
_WAITING: Final = 1.5
"""Wall-clock time a job may take, as a multiple of the time it may compute."""
_MEMORY: Final = 800 << 20


class Budget:
    """Runs the jobs of one file on one account: what one uses up, the next does not have.

    Args:
        helper: Where they run.
        size: Bytes of the model without its large weights, which the jobs do not see.
    """

    def __init__(self, helper: Sandbox, size: int) -> None:
        self._helper = helper
        self._all = min(_MOST_SECONDS, _LEAST_SECONDS + size / _BYTES_A_SECOND)
        self._left = self._all

    def run(self, job: str, options: dict[str, Any], payload: bytes) -> Answer:
        """Run one job with what is left (see `Sandbox.run`)."""
        limits = Limits(self._all * _WAITING, max(self._left, 1.0), _MEMORY)
        answer = self._helper.run(job, options, payload, limits)
        self._left -= answer.cpu
        return answer

"""Work on a stranger's model in a process of its own, with limits on time and memory.

Checker, shape inference and onnxsim are C++ that may abort, hang or eat all memory on a damaged
file. A small server process (`qconvert.frontends.onnx.worker`) imports what the jobs need once
and forks for every job, so a job costs milliseconds and can only take itself down.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import IO, Any, Final, Literal

from qconvert.frontends.onnx.frames import read_frame, write_frame

__all__ = ["Answer", "Limits", "Sandbox", "sandbox"]

Outcome = Literal["done", "refused", "died", "timeout"]
_GRACE_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use.

    Attributes:
        seconds: Wall-clock time; what ends a job that waits for ever.
        cpu: Seconds of computing; a busy machine does not use them up.
        memory: Bytes of private memory on top of what an idle process has.
    """

    seconds: float = 120.0
    cpu: float = 120.0
    memory: int = 800 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """How a job ended.

    Attributes:
        outcome: `done`; `refused` (the job says why in `info`); `died` or `timeout`.
        info: What the job reports besides its result.
        result: The job's bytes.
        cpu: Seconds it computed.
    """

    outcome: Outcome
    info: dict[str, Any]
    result: bytes = b""
    cpu: float = 0.0


class Sandbox:
    """The server process; it starts with the first job and again after it was lost."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, so that its imports run while the caller does other work."""
        if self._server is not None and self._server.poll() is None:
            return
        self.close()
        # One thread: forking a process that has threads can deadlock.
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, "-P", "-m", "qconvert.frontends.onnx.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **single},
        )

    def run(
        self, job: str, options: dict[str, Any], payload: bytes, limits: Limits | None = None
    ) -> Answer:
        """Run one job of `qconvert.frontends.onnx.jobs`.

        Args:
            job: Its name.
            options: JSON-able arguments.
            payload: Its input, usually a serialized model.
            limits: What it may use.

        Returns:
            The answer; a server that is lost counts as a job that died.
        """
        limits = limits or Limits()
        self.start()
        assert self._server is not None
        stdin, stdout = self._server.stdin, self._server.stdout
        assert stdin is not None
        assert stdout is not None
        request = {
            "job": job,
            "options": options,
            "seconds": limits.seconds,
            "cpu": limits.cpu,
            "memory": limits.memory,
        }
        try:
            write_frame(stdin, request, payload)
            status, result = read_frame(stdout)
        except (EOFError, OSError):
            self.close()
            return Answer("died", {"why": "the helper process is gone"})
        except BaseException:  # an interrupted conversation cannot be taken up again
            self.close()
            raise
        return Answer(status["outcome"], status["info"], result, status["cpu"])

    def close(self) -> None:
        """End the server."""
        if self._server is None:
            return
        server, self._server = self._server, None
        for stream in (server.stdin, server.stdout):
            _close(stream)
        try:
            server.wait(timeout=_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _close(stream: IO[bytes] | None) -> None:
    """Close a pipe whose other end may be gone."""
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.close()


@functools.cache
def sandbox() -> Sandbox:
    """The sandbox of this process."""
    shared = Sandbox()
    atexit.register(shared.close)
    return shared

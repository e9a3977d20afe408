"""The helper process of `qconvert.frontends.onnx.sandbox`: forks once per job."""

from __future__ import annotations

import math
import os
import resource
import select
import signal
import sys
import time
import traceback
from typing import IO, Any, Final

from qconvert.errors import QconvertError, UnsupportedError
from qconvert.frontends.onnx.frames import read_frame, write_frame
from qconvert.frontends.onnx.jobs import JOBS

__all__ = ["serve"]

_PIECE: Final = 1 << 20


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the other side closes the stream."""
    while True:
        try:
            request, payload = read_frame(requests)
        except EOFError:
            return
        status, result = _in_child(request, payload)
        write_frame(answers, status, result)


def _in_child(request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
    """Fork, run the job there, and collect what it writes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "wb") as stream:
            _run(request, payload, stream)
        os._exit(0)
    os.close(writer)
    deadline = time.monotonic() + float(request["seconds"])
    collected = _collect(reader, deadline)
    os.close(reader)
    if collected is None:
        os.kill(child, signal.SIGKILL)
    _, ended, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(ended)
    if collected is None or code == -signal.SIGXCPU:
        after = request["cpu" if collected is not None else "seconds"]
        status, result = {"outcome": "timeout", "info": {"why": f"no end after {after:.3g} s"}}, b""
    else:
        status, result = _answer(collected, code)
    return {**status, "cpu": usage.ru_utime + usage.ru_stime}, result


def _collect(reader: int, deadline: float) -> bytes | None:
    """Everything the child writes until it closes its end; None when time is over."""
    pieces: list[bytes] = []
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        piece = os.read(reader, _PIECE)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def _answer(collected: bytes, code: int) -> tuple[dict[str, Any], bytes]:
    """The child's frame, or how it died."""
    import io

    try:
        return read_frame(io.BytesIO(collected))
    except (EOFError, ValueError):
        ended = f"signal {-code}" if code < 0 else f"exit status {code}"
        return {"outcome": "died", "info": {"why": ended}}, b""


def _run(request: dict[str, Any], payload: bytes, stream: IO[bytes]) -> None:
    """Run the job under its limits and write its frame."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    computing = max(1, math.ceil(request["cpu"]))
    resource.setrlimit(resource.RLIMIT_CPU, (computing, computing + 1))
    limit = _data_size() + int(request["memory"]) + 4 * len(payload)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        info, result = JOBS[request["job"]](request["options"], payload)
        status = {"outcome": "done", "info": info}
    except QconvertError as error:
        status, result = {"outcome": "refused", "info": _described(error)}, b""
    except MemoryError:
        status, result = {"outcome": "died", "info": {"why": "out of memory"}}, b""
    except RecursionError:
        status, result = {"outcome": "died", "info": {"why": "nested too deeply"}}, b""
    except Exception:
        status, result = {"outcome": "died", "info": {"bug": traceback.format_exc()}}, b""
    write_frame(stream, status, result)


def _described(error: QconvertError) -> dict[str, Any]:
    """An error as JSON."""
    problems = error.problems if isinstance(error, UnsupportedError) else ()
    return {
        "class": type(error).__name__,
        "what": error.what,
        "at": error.at,
        "why": error.why,
        "fix": error.fix,
        "problems": [[p.what, p.at, p.why] for p in problems],
    }


def _data_size() -> int:
    """Bytes of private memory this process has now (what RLIMIT_DATA counts)."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - not a real file
        pages = int(file.read().split()[5])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # C++ libraries print to stdout: keep the answers on a descriptor of their own.
    _answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, _answers)

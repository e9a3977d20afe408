"""The child process of `qconvert.runtimes.ncnn`: loads one network and answers requests.

Both directions carry `.npy` records, each behind its length as a little-endian uint64. A request
is a JSON text (as uint8), followed by one array per input; the answer is an error text (as uint8,
empty when all went well), followed by one array per output.
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import time
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MARK", "receive", "send"]

MARK = "qconvert computes "
"""What stands on stderr in front of a blob's name, where a request asks for a trace."""


def send(stream: IO[bytes], array: npt.NDArray[Any]) -> None:
    """Write one array."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    stream.write(struct.pack("<Q", buffer.tell()))
    stream.write(buffer.getvalue())


def receive(stream: IO[bytes]) -> npt.NDArray[Any]:
    """Read one array.

    Raises:
        EOFError: If the other side is gone.
    """
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    (size,) = struct.unpack("<Q", head)
    body = stream.read(size)
    if len(body) < size:
        raise EOFError
    return np.asarray(np.load(io.BytesIO(body), allow_pickle=False))


def _load(job: dict[str, Any]) -> Any:  # noqa: ANN401 - ncnn has no type stubs
    """The network of `job`, or an exception whose text is the refusal."""
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1  # OpenMP threads spin: on a busy machine more of them are slower
    net.opt.lightmode = False  # every blob stays readable
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, job["fp16"])
    if net.load_param(job["param"]) != 0:
        raise RuntimeError("the .param does not load")
    if net.load_model(job["bin"]) != 0:
        raise RuntimeError("the .bin does not load")
    return net


def _forward(net: Any, request: dict[str, Any], arrays: list[npt.NDArray[Any]]) -> list[Any]:  # noqa: ANN401
    """Run the network once; one array per requested blob."""
    import ncnn

    extractor = net.create_extractor()
    for blob, array in zip(request["inputs"], arrays, strict=True):
        # A Mat borrows the array's memory: clone, or in-place layers write into it; and hold the
        # array until then, which may be a copy.
        dense = np.ascontiguousarray(array)
        if extractor.input(blob, ncnn.Mat(dense).clone()) != 0:
            raise RuntimeError(f"there is no input blob '{blob}'")
    results = []
    started = time.perf_counter()
    for blob in request["outputs"]:
        if request.get("trace"):
            os.write(2, f"\n{MARK}{blob}\n".encode())
        code, mat = extractor.extract(blob)
        if code != 0:
            raise RuntimeError(f"blob '{blob}' cannot be computed (code {code})")
        # np.array of an empty Mat crashes; nothing found is an empty array.
        results.append(np.zeros(0, np.float32) if mat.empty() else np.array(mat))
    return [np.array(time.perf_counter() - started)] if request.get("timed") else results


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the parent closes the stream."""
    net = None
    while True:
        try:
            request = json.loads(bytes(receive(requests)))
            arrays = [receive(requests) for _ in request.get("inputs", ())]
        except EOFError:
            return
        results: list[Any] = []
        error = ""
        try:
            if net is None:
                net = _load(request)
            else:
                results = _forward(net, request, arrays)
        except (BufferError, MemoryError, RuntimeError, ValueError) as refusal:
            error = str(refusal) or "its memory ran out"
        send(answers, np.frombuffer(error.encode(), dtype=np.uint8))
        for array in results:
            send(answers, array)
        answers.flush()


if __name__ == "__main__":
    # ncnn prints to stdout from C: keep the answers on a descriptor of their own.
    _answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, _answers)

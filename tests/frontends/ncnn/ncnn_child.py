"""A process that loads and runs one ncnn network after the other (ncnn may crash: not in ours)."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import ncnn
import numpy as np

from qconvert.runtimes.ncnn_worker import receive, send


def run(request: dict[str, Any], arrays: list[Any]) -> list[Any]:
    """Load the network of `request`, feed `arrays`, and extract its blobs."""
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1
    net.opt.lightmode = False
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, False)
    net.opt.use_packing_layout = request["packing"]
    if net.load_param(request["param"]) or net.load_model(request["bin"]):
        raise RuntimeError("ncnn refuses the files")
    extractor = net.create_extractor()
    for blob, array in zip(request["inputs"], arrays, strict=True):
        if extractor.input(blob, ncnn.Mat(np.ascontiguousarray(array)).clone()):
            raise RuntimeError(f"no input {blob}")
    results = []
    for blob in request["outputs"]:
        code, mat = extractor.extract(blob)
        if code or mat.empty():
            raise RuntimeError(f"{blob} cannot be computed ({code})")
        results.append(np.array(mat))
    return results


def main() -> None:
    """Answer until the stream ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            request = json.loads(bytes(receive(sys.stdin.buffer)))
            arrays = [receive(sys.stdin.buffer) for _ in request["inputs"]]
        except EOFError:
            return
        results: list[Any] = []
        error = ""
        try:
            results = run(request, arrays)
        except RuntimeError as refusal:
            error = str(refusal)
        send(answers, np.frombuffer(error.encode(), dtype=np.uint8))
        for array in results:
            send(answers, array)
        answers.flush()


if __name__ == "__main__":
    main()

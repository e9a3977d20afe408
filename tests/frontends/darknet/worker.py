"""Runs Darknet's own library on networks, one after the other, as a program of its own.

The library prints what it likes and ends the process where it does not like a network, so it lives
apart from the tests. A request is a line of JSON {library, cfg, weights, input, output, count}:
`input` names a `.npy`; `count` numbers of the network's output are written to `output`.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

import numpy as np


def run(library: ctypes.CDLL, job: dict[str, str | int]) -> None:
    """Load a network, predict once, and keep what it gives."""
    cfg, weights = str(job["cfg"]).encode(), str(job["weights"]).encode()
    library.load_network.restype = ctypes.c_void_p
    library.load_network.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int]
    # AlexeyAB's copies what it is given; pjreddie's takes the network by pointer as it is.
    predict = getattr(library, "network_predict_ptr", library.network_predict)
    predict.restype = ctypes.POINTER(ctypes.c_float)
    predict.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_float)]
    network = library.load_network(cfg, weights, 0)
    data = np.ascontiguousarray(np.load(str(job["input"])), dtype=np.float32)
    pointer = predict(network, data.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
    np.save(str(job["output"]), np.ctypeslib.as_array(pointer, (int(job["count"]),)))


def main() -> None:
    """Answer requests until the input ends."""
    library = ctypes.CDLL(sys.argv[1])
    answers = os.fdopen(int(sys.argv[2]), "w", buffering=1)
    for line in sys.stdin:
        run(library, json.loads(line))
        answers.write("done\n")


if __name__ == "__main__":
    main()

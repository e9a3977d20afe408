"""Runs Darknet's own library on networks, one after the other, as a program of its own.

The library prints what it likes and ends the process where it does not like a network, so it lives
apart from the tests. A request is a line of JSON {cfg, weights, input, output, count}: `input`
names a `.npy`, and `count` numbers of the network's output go to `output`. With {classes, size,
thresholds} it is the boxes of Darknet's detector instead, as rows of label, score, x0, y0, x1, y1.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

import numpy as np

FLOATS = ctypes.POINTER(ctypes.c_float)


class Detection(ctypes.Structure):
    """`detection` of pjreddie's darknet.h."""

    _fields_ = (
        ("box", ctypes.c_float * 4),
        ("classes", ctypes.c_int),
        ("prob", FLOATS),
        ("mask", FLOATS),
        ("objectness", ctypes.c_float),
        ("sort_class", ctypes.c_int),
    )


def typed(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of its functions."""
    boxes = ctypes.POINTER(Detection)
    number, real, integers = ctypes.c_int, ctypes.c_float, ctypes.POINTER(ctypes.c_int)
    library.load_network.restype = ctypes.c_void_p
    library.load_network.argtypes = [ctypes.c_char_p, ctypes.c_char_p, number]
    library.network_predict.restype = FLOATS
    library.network_predict.argtypes = [ctypes.c_void_p, FLOATS]
    library.get_network_boxes.restype = boxes
    library.get_network_boxes.argtypes = [
        *(ctypes.c_void_p, number, number, real, real, integers, number, integers)
    ]
    library.do_nms_sort.argtypes = [boxes, number, number, real]
    return library


def run(library: ctypes.CDLL, job: dict[str, Any]) -> None:
    """Load a network, predict once, and keep what it gives."""
    network = library.load_network(job["cfg"].encode(), job["weights"].encode(), 0)
    data = np.ascontiguousarray(np.load(job["input"]), dtype=np.float32)
    result = library.network_predict(network, data.ctypes.data_as(FLOATS))
    if "classes" in job:
        np.save(job["output"], detect(library, network, job))
    else:
        np.save(job["output"], np.ctypeslib.as_array(result, (job["count"],)))


def detect(library: ctypes.CDLL, network: int, job: dict[str, Any]) -> np.ndarray:
    """What Darknet's detector finds in the last prediction."""
    (width, height), (confidence, overlap) = job["size"], job["thresholds"]
    count = ctypes.c_int()
    found = library.get_network_boxes(
        network, width, height, confidence, 0.5, None, 1, ctypes.byref(count)
    )
    library.do_nms_sort(found, count.value, job["classes"], overlap)
    rows = []
    for each in found[: count.value]:
        x, y, w, h = each.box
        corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        # A box that fell below the threshold of objectness keeps a probability of 0.
        for label, score in enumerate(each.prob[: job["classes"]]):
            if score > 0:
                rows.append([label, score, *corners])
    return np.array(rows, dtype=np.float32).reshape(-1, 6)


def main() -> None:
    """Answer requests until the input ends."""
    library = typed(ctypes.CDLL(sys.argv[1]))
    answers = os.fdopen(int(sys.argv[2]), "w", buffering=1)
    for line in sys.stdin:
        run(library, json.loads(line))
        answers.write("done\n")


if __name__ == "__main__":
    main()

"""How fast a large caffemodel is read, and in how much memory.

    python bench/read_caffe.py [megabytes]

Writes a network of that size (default 500) with VGG-16's proportions into a temporary folder and
reads it in a fresh process. Prints the time as a ratio to reading the file's bytes, and the peak
memory as a ratio to its size.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from qconvert.frontends import caffe
from qconvert.frontends.caffe import caffe_pb2 as pb
from qconvert.report import Report
from qconvert.source import ReadOptions, Source


def write(folder: Path, megabytes: int) -> None:
    """A chain of fully connected layers; the first holds three quarters of the numbers."""
    rng = np.random.default_rng(0)
    inputs, width = 8192, megabytes * 1_000_000 // 4 * 3 // 4 // 8192
    sizes = [(width, inputs)] + [(inputs // 8, width)] + [(1024, inputs // 8)] * 2
    text = f'input: "x" input_shape {{ dim: 1 dim: {inputs} }}\n'
    net, bottom = pb.WeightsNet(), "x"
    for index, (outputs, columns) in enumerate(sizes):
        name = f"fc{index}"
        text += (
            f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
            f"inner_product_param {{ num_output: {outputs} bias_term: false }} }}\n"
        )
        blob = net.layer.add(name=name).blobs.add()
        blob.data.append(rng.standard_normal(outputs * columns, dtype=np.float32).tobytes())
        blob.shape.dim.extend([outputs, columns])
        bottom = name
    (folder / "net.prototxt").write_text(text)
    (folder / "net.caffemodel").write_bytes(net.SerializeToString())


def peak() -> int:
    """Largest resident size of this process so far, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(folder: Path) -> dict[str, float]:
    """Read it three times bare and once in earnest."""
    weights, empty = folder / "net.caffemodel", peak()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        content = weights.read_bytes()
        seconds.append(time.perf_counter() - start)
        del content
    start = time.perf_counter()
    model = caffe.read(Source(folder / "net.prototxt", weights), ReadOptions(), Report())
    taken = time.perf_counter() - start
    assert len(model.graph.initializers) == 4
    size = weights.stat().st_size
    return {
        "megabytes": size / 1e6,
        "bytes_seconds": min(seconds),
        "read_seconds": taken,
        "time_ratio": taken / min(seconds),
        "memory_ratio": (peak() - empty) / size,
    }


def main() -> None:
    """Write, then measure in a process of its own."""
    if sys.argv[1:2] == ["--measure"]:
        json.dump(measure(Path(sys.argv[2])), sys.stdout)
        return
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), megabytes)
        command = [sys.executable, __file__, "--measure", folder]
        result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    for key, value in result.items():
        sys.stdout.write(f"{key:<14} {value:9.3f}\n")


if __name__ == "__main__":
    main()

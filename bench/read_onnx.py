"""Reading a large ONNX model with external data: time and memory against reading its bytes.

Usage: python bench/read_onnx.py [megabytes]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import onnx

LAYERS: Final = 32
AIM_TIME: Final = 2.0
AIM_MEMORY: Final = 1.2


def make(folder: Path, megabytes: int) -> Path:
    """Write a chain of matrix products whose weights fill `megabytes` of external data."""
    size = int((megabytes * 2**20 / 4 / LAYERS) ** 0.5)
    model = onnx.ModelProto(ir_version=8)
    model.opset_import.add(domain="", version=17)
    graph = model.graph
    graph.name = "large"
    for name, values in (("x", graph.input), (f"v{LAYERS}", graph.output)):
        value = values.add(name=name)
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        for dim in (1, size):
            value.type.tensor_type.shape.dim.add().dim_value = dim
    rng = np.random.default_rng(0)
    with (folder / "weights.data").open("wb") as file:
        for index in range(LAYERS):
            tensor = graph.initializer.add(name=f"w{index}", data_type=1, dims=[size, size])
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", "weights.data"), ("offset", str(file.tell()))):
                tensor.external_data.add(key=key, value=value)
            file.write(rng.standard_normal((size, size), dtype=np.float32).tobytes())
            first = f"v{index}" if index else "x"
            graph.node.add(op_type="MatMul", input=[first, f"w{index}"], output=[f"v{index + 1}"])
    path = folder / "large.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def peak_memory() -> int:
    """Bytes this process had resident at most; getrusage would count its parent's too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(row for row in status.splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def child(path: Path) -> None:
    """Read once in a process of its own and print seconds, and peak memory over an idle one."""
    from qconvert.frontends.onnx import read
    from qconvert.frontends.onnx.sandbox import sandbox
    from qconvert.report import Report
    from qconvert.source import ReadOptions, Source

    # The helper process takes the same moment to start whatever the size of the model.
    sandbox().run("normalize", {}, b"")
    idle = peak_memory()
    start = time.perf_counter()
    read(Source(path), ReadOptions(simplify=False), Report())
    print(time.perf_counter() - start, peak_memory() - idle)


def main(megabytes: int) -> None:
    """Measure and print a line with the aims."""
    with tempfile.TemporaryDirectory() as name:
        path = make(Path(name), megabytes)
        data = Path(name) / "weights.data"
        data.read_bytes()  # both readings find the file in the page cache
        start = time.perf_counter()
        size = len(data.read_bytes())
        plain = time.perf_counter() - start
        command = [sys.executable, __file__, "--child", str(path)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, peak = (float(field) for field in answer.split())
    time_ratio, memory_ratio = seconds / plain, peak / size
    print(f"time   {time_ratio:.2f}x of reading the bytes (aim <= {AIM_TIME})")
    print(f"memory {memory_ratio:.2f}x of the file (aim <= {AIM_MEMORY})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)

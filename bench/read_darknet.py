"""How long a large Darknet network takes to read, and how much memory.

Run it with `python bench/read_darknet.py [MEGABYTES]`. It writes a weights file of 250 MB into a
temporary folder, reads its bytes into memory, and reads the network in a process of its own; the
file is in the page cache for both. One line of JSON says what was measured, best of five:
`time_ratio` is the time of reading the network over that of reading the bytes, `memory_ratio` the
growth of the process over the size of the file (pages of the mapped file included).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CHANNELS = 512
LAYER = f"[convolutional]\nbatch_normalize=1\nfilters={CHANNELS}\nsize=3\npad=1\nactivation=leaky\n"
NUMBERS = CHANNELS * (4 + CHANNELS * 9)
REPEATS = 5


def make(folder: Path, megabytes: int) -> tuple[Path, Path]:
    """A network of equal convolutions with random weights."""
    cfg, weights = folder / "net.cfg", folder / "net.weights"
    layers = max(1, round(megabytes * 1e6 / (4 * NUMBERS)))
    cfg.write_text(f"[net]\nchannels={CHANNELS}\nheight=13\nwidth=13\n" + LAYER * layers)
    rng = np.random.default_rng(0)
    with weights.open("wb") as file:
        file.write(np.array([0, 2, 5, 0, 0], dtype="<i4").tobytes())
        for _ in range(layers):
            file.write(rng.uniform(0.1, 1, NUMBERS).astype("<f4").tobytes())
    return cfg, weights


def read_bytes(weights: Path) -> float:
    """Seconds to read the file into memory."""
    begin = time.perf_counter()
    content = weights.read_bytes()
    seconds = time.perf_counter() - begin
    assert len(content) == weights.stat().st_size
    return seconds


def peak() -> int:
    """Largest resident size of this process so far, in bytes."""
    # ru_maxrss would begin with what the parent had before it started this program.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def child(cfg: Path, weights: Path) -> None:
    """Read the network, and print seconds and growth in bytes."""
    from qconvert.frontends.darknet.reader import read
    from qconvert.report import Report
    from qconvert.source import ReadOptions, Source

    before = peak()
    begin = time.perf_counter()
    model = read(Source(cfg, weights), ReadOptions(), Report())
    seconds = time.perf_counter() - begin
    after = peak()
    assert len(model.graph) > 0
    print(json.dumps({"seconds": seconds, "bytes": after - before}))


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 250
    with tempfile.TemporaryDirectory() as folder:
        cfg, weights = make(Path(folder), megabytes)
        size = weights.stat().st_size
        plain, runs = [], []
        for _ in range(REPEATS):
            plain.append(read_bytes(weights))
            command = [sys.executable, __file__, "--child", str(cfg), str(weights)]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    seconds, bytes_read = min(run["seconds"] for run in runs), min(plain)
    result = {
        "what": "read a Darknet weights file",
        "megabytes": round(size / 1e6, 1),
        "seconds": round(seconds, 4),
        "seconds_bytes": round(bytes_read, 4),
        "time_ratio": round(seconds / bytes_read, 2),
        "memory_ratio": round(max(run["bytes"] for run in runs) / size, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

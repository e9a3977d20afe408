"""Which layer ends ncnn: asked once the network has killed its child process.

While it runs, layer by layer: a fresh child says which blob it is about to compute. While it loads,
by halving: the shortest beginning of the `.param` that dies ends with the layer to blame.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.runtimes.ncnn_worker import MARK, send

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMAND", "last_blob", "loading_layer"]

# -P: a numpy.py in the folder the user stands in is not the one to import.
COMMAND: Final = (sys.executable, "-P", "-m", "qconvert.runtimes.ncnn_worker")
_PATIENCE: Final = 60.0


def last_blob(printed: str) -> str:
    """The blob that a tracing child named last; empty when it named none."""
    lines = [line for line in printed.splitlines() if line.startswith(MARK)]
    return lines[-1].removeprefix(MARK) if lines else ""


def loading_layer(param: Path, weights: Path, *, fp16: bool) -> str:
    """The layer on which loading dies, as `Convolution 'conv1'`; empty when it does not die."""
    magic, counts, *layers = param.read_text(encoding="utf-8").splitlines()
    blobs = counts.split()[-1]
    with tempfile.TemporaryDirectory() as folder:
        beginning = Path(folder) / "beginning.param"

        def dies(count: int) -> bool:
            head = [magic, f"{count} {blobs}", *layers[:count]]
            beginning.write_text("\n".join(head) + "\n", encoding="utf-8")
            return _dies(beginning, weights, fp16=fp16)

        if not layers or not dies(len(layers)):
            return ""
        good, bad = 0, len(layers)
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (good, middle) if dies(middle) else (middle, bad)
    return _title(layers[bad - 1].split())


def _title(words: Sequence[str]) -> str:
    """Type and name of a layer line."""
    return f"{words[0]} '{words[1]}'" if len(words) > 1 else ""


def _dies(param: Path, weights: Path, *, fp16: bool) -> bool:
    """Whether a child that loads these files ends without an answer."""
    job = json.dumps({"param": str(param), "bin": str(weights), "fp16": fp16}).encode()
    request = io.BytesIO()
    send(request, np.frombuffer(job, dtype=np.uint8))
    try:
        child = subprocess.run(  # noqa: S603 - our own module
            COMMAND,
            input=request.getvalue(),
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return child.returncode != 0

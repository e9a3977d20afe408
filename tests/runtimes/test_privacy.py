"""Running a model tells nobody of it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_onnxruntime_opens_no_telemetry_session(tmp_path: Path) -> None:
    environment = {key: text for key, text in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}

    subprocess.run(
        [sys.executable, "-c", "import qconvert.runtimes.onnx"],
        env={**environment, "TMPDIR": str(tmp_path)},
        check=True,
    )

    assert list(tmp_path.iterdir()) == []

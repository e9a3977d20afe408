"""NVIDIA's own tools read what is written, where they are installed."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import logging
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.backends.tensorrt.support import image, quantized, residual, write

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from tests.backends.tensorrt.support import Bundle

READER = "import_scales_from_calib_cache"


@pytest.fixture
def bundle(tmp_path: Path, rng: np.random.Generator) -> Bundle:
    model, feed = residual(rng), image(rng)
    return write(tmp_path, quantized(model, feed), model)


def modelopts_reader() -> Any:  # noqa: ANN401 - a function without types
    """The reader of caches in NVIDIA's wheel, without the rest, which wants CUDA."""
    try:
        files = importlib.metadata.files("nvidia-modelopt") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("nvidia-modelopt is not installed")
    path = next(file for file in files if file.name == "calib_utils.py").locate()
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - a locator, not a Path
        tree = ast.parse(file.read())
    chosen: list[ast.stmt] = [
        n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == READER
    ]
    names: dict[str, Any] = {"struct": struct, "logger": logging.getLogger(READER)}
    exec(compile(ast.Module(chosen, []), str(path), "exec"), names)
    return names[READER]


@pytest.mark.slow
def test_modelopt_reads_every_row(bundle: Bundle) -> None:
    found = modelopts_reader()(str(bundle.folder / "calibration.cache"))

    assert found == {f"{name}_scale": scale for name, scale in bundle.cache.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.onnx", "model.qdq.onnx"])
@pytest.mark.parametrize("command", [("inspect", "model"), ("run", "--onnxrt")])
def test_polygraphy_takes_the_models(command: tuple[str, ...], name: str, bundle: Bundle) -> None:
    if importlib.util.find_spec("polygraphy") is None:
        pytest.skip("polygraphy is not installed")
    program = "from polygraphy.tools import main; raise SystemExit(main())"

    done = subprocess.run(
        [sys.executable, "-c", program, *command, str(bundle.folder / name)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr

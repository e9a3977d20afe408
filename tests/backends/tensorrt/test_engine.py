"""Engines: on a machine with a GPU for real, elsewhere against a stand-in for the package."""

from __future__ import annotations

import ctypes
import importlib.util
from typing import TYPE_CHECKING, Any

import pytest

from qconvert.backends.tensorrt import backend, engine
from qconvert.errors import MissingRuntimeError, VerificationError
from tests.backends.tensorrt.stand_in import StandIn
from tests.backends.tensorrt.support import cosine, image, quantized, residual, run, write
from tests.backends.tensorrt.test_writer import manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np


class HostMemory:
    """A CUDA runtime whose device is this computer."""

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}

    def allocate(self, size: int) -> int:
        memory = ctypes.create_string_buffer(size)
        self.held[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def free(self, address: int) -> None:
        del self.held[address]

    def copy(self, to: int, source: int, size: int, kind: int) -> None:
        assert kind in {1, 2}
        ctypes.memmove(to, source, size)

    def wait(self) -> None: ...


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[StandIn], HostMemory]:
    """Put a stand-in in the place of TensorRT and CUDA."""

    def install(package: StandIn) -> HostMemory:
        memory = HostMemory()
        monkeypatch.setattr(engine, "_package", lambda: package)
        monkeypatch.setattr(engine, "_Cuda", lambda: memory)
        return memory

    return install


CASES = [
    ("7.2.3", False, ["network 1 flag int8 no tf32 cache TRT-7203-EntropyCalibration2"]),
    ("8.4.3", False, [
        "network 1 flag int8 no tf32",
        "network 1 flag int8 no tf32 cache TRT-8403-EntropyCalibration2",
    ]),
    ("10.3.0", True, [
        "network 0 workspace 1073741824 flag int8 no tf32",
        "network 0 workspace 1073741824 flag int8 no tf32 cache TRT-100300-EntropyCalibration2",
    ]),
    ("11.0.0", True, ["network 0 workspace 1073741824 no tf32"]),
]  # fmt: skip


@pytest.mark.parametrize(("version", "named", "log"), CASES, ids=[case[0] for case in CASES])
def test_each_version_is_built_its_own_way(
    version: str,
    log: list[str],
    pretend: Callable[[StandIn], HostMemory],
    tmp_path: Path,
    rng: np.random.Generator,
    *,
    named: bool,
) -> None:
    model, feed = residual(rng), image(rng)
    bundle = write(tmp_path, quantized(model, feed), model, version=version)
    package = StandIn(version, named=named)
    memory = pretend(package)
    assert backend.BACKEND.engines is not None

    engines = []
    for made in backend.BACKEND.engines(tmp_path, manifest_of(bundle)):
        engines.append(" ".join(package.log))
        package.log.clear()
        assert cosine(made.run(feed)["prob"], run(model, feed)["prob"]) > 0.999
        assert made.name.startswith(f"TensorRT {version} (")
        made.close()

    assert engines == log
    assert memory.held == {}


def test_a_refused_model_says_why(
    pretend: Callable[[StandIn], HostMemory],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    model, feed = residual(rng), image(rng)
    bundle = write(tmp_path, quantized(model, feed), model, version="11.0")
    pretend(StandIn("11.0.0", named=True, refuses=True))

    with pytest.raises(VerificationError, match="parser refuses") as error:
        list(engine.engines(tmp_path, manifest_of(bundle)))

    assert "node 0 is unknown" in error.value.why


def test_another_major_version_is_told_apart(
    pretend: Callable[[StandIn], HostMemory],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    model, feed = residual(rng), image(rng)
    bundle = write(tmp_path, quantized(model, feed), model, version="8.6.1")
    pretend(StandIn("10.3.0", named=True))

    with pytest.raises(MissingRuntimeError, match=r"the bundle is for 8\.6\.1"):
        list(engine.engines(tmp_path, manifest_of(bundle)))


@pytest.mark.gpu
def test_tensorrt_builds_the_bundle_and_does_what_it_should(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    if importlib.util.find_spec("tensorrt") is None:
        pytest.skip("TensorRT is not installed")
    version = ".".join(str(engine._package().__version__).split(".")[:3])
    model, feed = residual(rng), image(rng)
    simulation = quantized(model, feed)
    bundle = write(tmp_path, simulation, model, version=version)
    assert backend.BACKEND.engines is not None

    for made in backend.BACKEND.engines(tmp_path, manifest_of(bundle)):
        assert cosine(made.run(feed)["prob"], run(simulation, feed)["prob"]) > 0.99
        made.close()

"""Builds a bundle's engine with TensorRT itself and runs it: the check that needs a GPU.

The Q/DQ model is built from version 8 on: 11 knows strongly typed networks alone, older ones are
told to use int8. The float model is built, up to version 10, with a calibrator that has nothing but
the cache. Engines run through the tensor-name API from 8.5 on, through bindings before.

Nothing of this can run where qconvert is developed: it follows the documentation of the Python API
and of its migration guides.

Reference: NVIDIA/TensorRT samples/python (8.6, 10.1, 11.0); the CUDA runtime is called through
ctypes, for its four functions that move memory.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from qconvert.backends.tensorrt.check import version_of
from qconvert.errors import MissingRuntimeError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from qconvert.bundle import Manifest
    from qconvert.quant import F32

__all__ = ["EngineRuntime", "engines"]

_TO_DEVICE, _TO_HOST = 1, 2
_WORKSPACE: Final = 1 << 30


def engines(folder: Path, manifest: Manifest) -> Iterator[EngineRuntime]:
    """Build the engines of a bundle on this machine, one after the other.

    From the Q/DQ model where there is one, and from the float model with the cache.

    Raises:
        MissingRuntimeError: If TensorRT, CUDA or a GPU is missing, or the versions do not match.
        VerificationError: If TensorRT refuses the files.
    """
    trt = _package()
    wanted = version_of(folder, manifest)
    found = str(trt.__version__)
    if found.split(".")[0] != str(wanted.major):
        raise MissingRuntimeError(
            f"TensorRT {found} is installed, and the bundle is for {wanted}",
            at=str(folder),
            why="another major version reads other files",
            fix=f"convert again with --trt-version {found}",
        )
    cuda = _Cuda()
    roles = {file.role for file in manifest.files}
    if "model" in roles:
        yield EngineRuntime(trt, cuda, manifest.find(folder, "model"), None, manifest)
    if "calibration-cache" in roles:
        cache = manifest.find(folder, "calibration-cache")
        plain = manifest.find(folder, "float-model")
        yield EngineRuntime(trt, cuda, plain, cache, manifest)


def _package() -> Any:  # noqa: ANN401 - a module without types
    """The `tensorrt` package."""
    try:
        return importlib.import_module("tensorrt")
    except Exception as error:  # its libraries may be missing in many ways
        raise MissingRuntimeError(
            "TensorRT is not installed",
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix="run this on the machine that builds the engine, with its `tensorrt` package",
        ) from error


class _Cuda:
    """The CUDA runtime, as far as copying goes."""

    def __init__(self) -> None:
        names = ("libcudart.so", *(f"libcudart.so.{major}" for major in (13, 12, 11, 10)))
        self._library = next((found for name in names if (found := _library(name))), None)
        if self._library is None:
            raise MissingRuntimeError(
                "the CUDA runtime is not installed",
                why="there is no libcudart.so",
                fix="install CUDA, or set LD_LIBRARY_PATH",
            )
        count = ctypes.c_int(0)
        if self._library.cudaGetDeviceCount(ctypes.byref(count)) != 0 or count.value == 0:
            raise MissingRuntimeError(
                "there is no GPU",
                why="CUDA finds no device",
                fix="run this on the machine that builds the engine",
            )

    def allocate(self, size: int) -> int:
        """Memory on the device; its address."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        return int(address.value or 0)

    def free(self, address: int) -> None:
        """Give memory back."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def copy(self, to: int, source: int, size: int, kind: int) -> None:
        """Copy `size` bytes, and wait for it."""
        self._call(
            "cudaMemcpy", ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(size), kind
        )

    def wait(self) -> None:
        """Wait for everything that runs."""
        self._call("cudaDeviceSynchronize")

    def _call(self, name: str, *arguments: object) -> None:
        assert self._library is not None
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise VerificationError(f"CUDA fails in {name}", why=f"error {code}")


def _library(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


class EngineRuntime:
    """An engine built from a bundle, run on the GPU.

    Args:
        trt: The `tensorrt` package.
        cuda: The CUDA runtime.
        model: ONNX file.
        cache: Calibration cache for it; None: it has Q/DQ nodes, or is float.
        manifest: Of the bundle.

    Raises:
        VerificationError: If TensorRT refuses the model.
    """

    def __init__(
        self,
        trt: Any,  # noqa: ANN401
        cuda: _Cuda,
        model: Path,
        cache: Path | None,
        manifest: Manifest,
    ) -> None:
        self._trt, self._cuda = trt, cuda
        self._made_from = model.name if cache is None else cache.name
        self._major = int(str(trt.__version__).split(".")[0])
        self._theirs = dict(manifest.blobs)
        self._ours = {theirs: ours for ours, theirs in self._theirs.items()}
        self._logger = trt.Logger(trt.Logger.WARNING)
        plan = self._build(model, cache, quantized=manifest.quantized)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise VerificationError("TensorRT cannot load the engine it built", at=str(model))
        self._context = self._engine.create_execution_context()

    @property
    def name(self) -> str:
        """Name, version, and what the engine was built from."""
        return f"TensorRT {self._trt.__version__} ({self._made_from})"

    def _build(self, model: Path, cache: Path | None, *, quantized: bool) -> Any:  # noqa: ANN401
        """The serialized engine."""
        trt = self._trt
        builder = trt.Builder(self._logger)
        network = builder.create_network(self._network_flags())
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(model.read_bytes()):
            told = [str(parser.get_error(index)) for index in range(parser.num_errors)]
            raise VerificationError(
                "TensorRT's parser refuses the model", at=str(model), why="\n       ".join(told)
            )
        config = builder.create_builder_config()
        if hasattr(config, "set_memory_pool_limit"):
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE)
        else:
            config.max_workspace_size = _WORKSPACE
        if quantized and self._major < 11:
            config.set_flag(trt.BuilderFlag.INT8)
        if cache is not None:
            # TensorRT asks it while it builds: it has to live as long as this.
            self._calibrator = _calibrator(trt, cache.read_bytes())
            config.int8_calibrator = self._calibrator
        if hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)  # compared with float32 on a CPU
        plan = (
            builder.build_serialized_network(network, config)
            if hasattr(builder, "build_serialized_network")
            else builder.build_engine(network, config).serialize()
        )
        if plan is None:
            raise VerificationError(
                "TensorRT cannot build the model", at=str(model), why="its log above says why"
            )
        return plan

    def _network_flags(self) -> int:
        """One batch dimension like any other; from 10 on that is the only way."""
        flags = self._trt.NetworkDefinitionCreationFlag
        if self._major < 10:
            return 1 << int(flags.EXPLICIT_BATCH)
        return 0

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Run once; see `Runtime.run`."""
        feed = {self._theirs.get(name, name): array for name, array in inputs.items()}
        found = (
            self._run_named(feed)
            if hasattr(self._engine, "num_io_tensors")
            else (self._run_bound(feed))
        )
        return {self._ours.get(name, name): array for name, array in found.items()}

    def _run_named(self, feed: Mapping[str, F32]) -> dict[str, F32]:
        """TensorRT 8.5 and newer: tensors have addresses by name."""
        engine, context = self._engine, self._context
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        hosts = {
            name: self._host(
                feed, name, engine.get_tensor_shape(name), engine.get_tensor_dtype(name)
            )
            for name in names
        }
        with _Buffers(self._cuda, hosts) as buffers:
            for name, address in buffers.addresses.items():
                context.set_tensor_address(name, address)
            if not context.execute_async_v3(0):
                raise VerificationError("TensorRT cannot run the engine", why="see its log above")
            return buffers.outputs(feed)

    def _run_bound(self, feed: Mapping[str, F32]) -> dict[str, F32]:
        """Older versions: addresses in the order of bindings."""
        engine = self._engine
        names = [engine.get_binding_name(index) for index in range(engine.num_bindings)]
        hosts = {
            name: self._host(
                feed, name, engine.get_binding_shape(name), engine.get_binding_dtype(name)
            )
            for name in names
        }
        with _Buffers(self._cuda, hosts) as buffers:
            if not self._context.execute_v2([buffers.addresses[name] for name in names]):
                raise VerificationError("TensorRT cannot run the engine", why="see its log above")
            return buffers.outputs(feed)

    def _host(self, feed: Mapping[str, F32], name: str, shape: Any, dtype: Any) -> Any:  # noqa: ANN401
        """An input's numbers, or room for an output's."""
        kind = self._trt.nptype(dtype)
        if name in feed:
            return np.ascontiguousarray(feed[name], dtype=kind)
        return np.zeros(tuple(shape), kind)

    def close(self) -> None:
        """Release the engine."""
        self._context = self._engine = self._runtime = None


class _Buffers:
    """Device memory for every input and output of one run."""

    def __init__(self, cuda: _Cuda, hosts: Mapping[str, Any]) -> None:
        self._cuda, self._hosts = cuda, hosts
        self.addresses: dict[str, int] = {}

    def __enter__(self) -> Self:
        for name, array in self._hosts.items():
            self.addresses[name] = address = self._cuda.allocate(array.nbytes)
            self._cuda.copy(address, array.ctypes.data, array.nbytes, _TO_DEVICE)
        return self

    def outputs(self, feed: Mapping[str, F32]) -> dict[str, F32]:
        """What the run left in the outputs."""
        self._cuda.wait()
        found = {}
        for name, array in self._hosts.items():
            if name not in feed:
                self._cuda.copy(array.ctypes.data, self.addresses[name], array.nbytes, _TO_HOST)
                found[name] = array
        return found

    def __exit__(self, *_: object) -> None:
        for address in self.addresses.values():
            self._cuda.free(address)


def _calibrator(trt: Any, cache: bytes) -> Any:  # noqa: ANN401 - an object of the package's class
    """A calibrator that has a cache and no data."""

    class FromCache(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]  # known at run time only
        """Hands out the cache."""

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: object) -> None:
            del names

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, found: object) -> None:
            del found

    return FromCache()

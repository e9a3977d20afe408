"""A stand-in for the `tensorrt` package: the interface of one version, onnxruntime behind it."""

from __future__ import annotations

import ctypes
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort


class Logger:
    """Says nothing."""

    WARNING = 1

    def __init__(self, level: int) -> None: ...


class Network:
    """Holds the file that was parsed."""

    content = b""


class Parser:
    """Takes every file, or none."""

    num_errors = 1

    def __init__(self, package: StandIn, network: Network, _: Logger) -> None:
        self.package, self.network = package, network

    def parse(self, content: bytes) -> bool:
        self.network.content = content
        return not self.package.refuses

    def get_error(self, index: int) -> str:
        return f"node {index} is unknown"


class OldConfig:
    """Before 8.4: the workspace is an attribute."""

    def __init__(self, package: StandIn) -> None:
        self.log, self.int8_calibrator = package.log, None
        self.max_workspace_size = 0

    def set_flag(self, flag: str) -> None:
        self.log.append(f"flag {flag}")

    def clear_flag(self, flag: str) -> None:
        self.log.append(f"no {flag}")


class Config(OldConfig):
    """From 8.4 on."""

    def set_memory_pool_limit(self, kind: str, size: int) -> None:
        self.log.append(f"{kind} {size}")


class Builder:
    """Makes the parsed file the engine."""

    def __init__(self, package: StandIn, _: Logger) -> None:
        self.package = package

    def create_network(self, flags: int) -> Network:
        self.package.log.append(f"network {flags}")
        return Network()

    def create_builder_config(self) -> OldConfig:
        return Config(self.package) if self.package.named else OldConfig(self.package)

    def build_serialized_network(self, network: Network, config: OldConfig) -> bytes:
        calibrator: Any = config.int8_calibrator
        if calibrator is not None:
            assert calibrator.get_batch_size() == 1
            assert calibrator.get_batch(["data"]) is None
            head = calibrator.read_calibration_cache().splitlines()[0].decode()
            self.package.log.append(f"cache {head}")
        return network.content


class Engine:
    """Runs the file in onnxruntime; tensors by name, or bindings by number."""

    def __init__(self, package: StandIn, plan: bytes) -> None:
        self.session = ort.InferenceSession(plan, providers=["CPUExecutionProvider"])
        ends = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.names = [end.name for end in ends]
        self.shapes = {end.name: tuple(end.shape) for end in ends}
        if package.named:
            self.num_io_tensors = len(ends)
        self.num_bindings = len(ends)

    def get_tensor_name(self, index: int) -> str:
        return str(self.names[index])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def get_tensor_dtype(self, name: str) -> str:
        assert name in self.shapes
        return "float"

    get_binding_name = get_tensor_name
    get_binding_shape = get_tensor_shape
    get_binding_dtype = get_tensor_dtype

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    """Reads inputs from addresses and writes outputs to them."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.addresses = engine, dict[str, int]()

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 0
        return self.execute_v2([self.addresses[name] for name in self.engine.names])

    def execute_v2(self, addresses: list[int]) -> bool:
        held = {}
        for name, address in zip(self.engine.names, addresses, strict=True):
            shape = self.engine.shapes[name]
            start = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
            held[name] = np.ctypeslib.as_array(start, shape)
        session = self.engine.session
        given = {end.name: held[end.name] for end in session.get_inputs()}
        for end, array in zip(session.get_outputs(), session.run(None, given), strict=True):
            held[end.name][...] = array
        return True


class StandIn:
    """The package.

    Args:
        version: What it says it is.
        named: Whether engines have tensors by name (8.5 and newer).
        refuses: Whether the parser refuses every file.
    """

    def __init__(self, version: str, *, named: bool, refuses: bool = False) -> None:
        self.__version__ = version
        self.named, self.refuses = named, refuses
        self.log: list[str] = []
        self.Logger = Logger
        self.Builder = partial(Builder, self)
        self.OnnxParser = partial(Parser, self)
        self.NetworkDefinitionCreationFlag = SimpleNamespace(EXPLICIT_BATCH=0)
        self.BuilderFlag = SimpleNamespace(INT8="int8", TF32="tf32")
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.IInt8EntropyCalibrator2 = type("Calibrator", (), {})

    def Runtime(self, _: Logger) -> SimpleNamespace:  # noqa: N802 - the package's name
        return SimpleNamespace(deserialize_cuda_engine=partial(Engine, self))

    def nptype(self, _: str) -> type[np.float32]:
        return np.float32

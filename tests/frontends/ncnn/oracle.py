"""Write a network, run it in ncnn and, read back, in onnxruntime; compare."""

from __future__ import annotations

import atexit
import contextlib
import json
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from qconvert.formats.ncnn_bin import Buffer, Stored, write
from qconvert.formats.ncnn_param import Layer, Network, Param
from qconvert.frontends.ncnn import read
from qconvert.report import Report
from qconvert.runtimes.ncnn_worker import receive, send
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.source import ReadOptions, Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from qconvert.quant import F32

PATIENCE = 10.0
"""Seconds after which ncnn counts as lost in a loop (it reads outside of its blobs at times)."""

CHILD = Path(__file__).with_name("ncnn_child.py")


class NcnnRefusedError(Exception):
    """ncnn does not load or run the network."""


class _Ncnn:
    """The child process; a new one is started when it dies."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def ask(
        self, request: Mapping[str, object], arrays: Sequence[npt.NDArray[np.generic]]
    ) -> list[F32]:
        """Answer of the child; of a second one, if an earlier network broke the first."""
        try:
            return self._ask(request, arrays)
        except (EOFError, OSError):
            self.close()
        try:
            return self._ask(request, arrays)
        except (EOFError, OSError) as error:
            self.close()
            raise NcnnRefusedError("ncnn died") from error

    def _ask(
        self, request: Mapping[str, object], arrays: Sequence[npt.NDArray[np.generic]]
    ) -> list[F32]:
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None
        assert stdout is not None
        send(stdin, np.frombuffer(json.dumps(request).encode(), dtype=np.uint8))
        for array in arrays:
            send(stdin, array)
        stdin.flush()
        if not select.select([stdout], [], [], PATIENCE)[0]:
            self._child.kill()
        error = bytes(np.asarray(receive(stdout), dtype=np.uint8)).decode()
        if error:
            raise NcnnRefusedError(error)
        outputs = request["outputs"]
        assert isinstance(outputs, list)
        return [np.asarray(receive(stdout), dtype=np.float32) for _ in outputs]

    def close(self) -> None:
        if self._child is not None:
            assert self._child.stdin is not None
            assert self._child.stdout is not None
            with contextlib.suppress(OSError):
                self._child.stdin.close()
            self._child.wait()
            self._child.stdout.close()
            self._child = None


_NCNN = _Ncnn()


def raw(array: npt.ArrayLike) -> Buffer:
    return Buffer(np.asarray(array, dtype=np.float32), tagged=False)


def tagged(array: Stored) -> Buffer:
    return Buffer(array, tagged=True)


def single(
    kind: str,
    params: Mapping[int, Param],
    shapes: Sequence[tuple[int, ...]],
    outputs: int = 1,
) -> Network:
    """A network of one layer over inputs of `shapes` (without batch)."""
    layers = []
    for index, dims in enumerate(shapes):
        keys = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 11, 1, 0)}[len(dims)]
        sizes = dict(zip(keys, dims, strict=True))
        layers.append(Layer("Input", f"in{index}", (), (f"x{index}",), sizes))
    inputs = tuple(f"x{index}" for index in range(len(shapes)))
    made = tuple(f"y{index}" for index in range(outputs))
    layers.append(Layer(kind, "layer", inputs, made, dict(params)))
    return Network(tuple(layers))


def load(
    network: Network, buffers: Sequence[Buffer] = (), report: Report | None = None
) -> ir.Model:
    """Write the network, and read it back."""
    with tempfile.TemporaryDirectory() as folder:
        source = _write(network, buffers, Path(folder))
        model = read(source, ReadOptions(), report or Report())
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
        return model


def _write(network: Network, buffers: Sequence[Buffer], folder: Path) -> Source:
    source = Source(folder / "model.param", folder / "model.bin")
    source.model.write_text(str(network))
    assert source.weights is not None
    with source.weights.open("wb") as file:
        write(buffers, file)
    return source


def in_ncnn(
    network: Network,
    buffers: Sequence[Buffer],
    inputs: Mapping[str, npt.NDArray[np.generic]],
    *,
    packing: bool = True,
) -> dict[str, F32]:
    """Output blobs of the network in ncnn.

    Args:
        network: The network.
        buffers: Its weights.
        inputs: Blob → array without batch axis.
        packing: Whether ncnn may interleave channels; its packed kernels round differently.

    Raises:
        NcnnRefusedError: If ncnn does not run it.
    """
    read_blobs = {blob for layer in network.layers for blob in layer.inputs}
    wanted = [blob for layer in network.layers for blob in layer.outputs if blob not in read_blobs]
    with tempfile.TemporaryDirectory() as folder:
        source = _write(network, buffers, Path(folder))
        request = {
            "param": str(source.model),
            "bin": str(source.weights),
            "inputs": list(inputs),
            "outputs": wanted,
            "packing": packing,
        }
        arrays = _NCNN.ask(request, list(inputs.values()))
    return dict(zip(wanted, arrays, strict=True))


def random_inputs(network: Network, seed: int = 0) -> dict[str, F32]:
    """Normal numbers for every Input layer."""
    rng = np.random.default_rng(seed)
    shapes = {}
    for layer in network.layers:
        if layer.kind == "Input":
            dims = [layer.int(key, 0) for key in (2, 11, 1, 0) if layer.int(key, 0)]
            shapes[layer.outputs[0]] = dims
    return {name: rng.normal(size=dims).astype(np.float32) for name, dims in shapes.items()}


def assert_same(
    network: Network,
    buffers: Sequence[Buffer] = (),
    inputs: Mapping[str, F32] | None = None,
    *,
    tolerance: float = 1e-4,
    packing: bool = True,
) -> None:
    """ncnn and the network read back give the same shapes and, within a part of the range, values.

    Raises:
        NcnnRefusedError: If ncnn does not run it.
    """
    feed = dict(inputs) if inputs is not None else random_inputs(network)
    expected = in_ncnn(network, buffers, feed, packing=packing)
    model = load(network, buffers)
    with OnnxRuntime(model, threads=1) as runtime:
        given = runtime.run({name: array[None] for name, array in feed.items()})
    assert set(given) == set(expected)
    for name, right in expected.items():
        assert given[name].shape == (1, *right.shape), name
        scale = max(1.0, float(np.abs(right).max(initial=0.0)))
        np.testing.assert_allclose(
            given[name][0] / scale, right / scale, rtol=0, atol=tolerance, err_msg=name
        )

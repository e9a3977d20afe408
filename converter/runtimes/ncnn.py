"""The pip `ncnn` runtime in a child process.

ncnn is C++ that may end the process on a damaged or unlucky model, so it never runs in ours. The
child (`qconvert.runtimes.ncnn_worker`) loads one .param/.bin pair and answers requests over its
standard streams with plain `.npy` arrays.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from typing import IO, TYPE_CHECKING, Self

import numpy as np

from qconvert.errors import MissingRuntimeError, VerificationError
from qconvert.runtimes import Tap
from qconvert.runtimes.ncnn_trace import COMMAND, last_blob, loading_layer
from qconvert.runtimes.ncnn_worker import receive, send

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qconvert.quant import F32

__all__ = ["Made", "NcnnRuntime", "require"]


def require() -> None:
    """Make sure that the ncnn package can be imported.

    Raises:
        MissingRuntimeError: If it is not installed.
    """
    if importlib.util.find_spec("ncnn") is None:
        raise MissingRuntimeError(
            "the ncnn runtime is not installed",
            why="every ncnn bundle is run on ncnn before it counts as converted",
            fix="pip install 'qconvert[ncnn]'",
        )


@dataclass(frozen=True, slots=True)
class Made:
    """What is known of a blob.

    Attributes:
        layer: The layer that makes it, as `Convolution 'conv1'`.
        codes: Whether it holds int8 codes.
        indices: Whether it is an input of int32 numbers, as an Embed reads them.
        first_label: What a table of detections calls the first class.
    """

    layer: str
    codes: bool = False
    first_label: int = 0
    indices: bool = False


class _DiedError(Exception):
    """The child is gone; `code` says how it ended."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class NcnnRuntime:
    """One .param/.bin pair, loaded in a child process.

    Args:
        param: The `.param` file.
        weights: The `.bin` file.
        inputs: Network input name → its blob in the artifact.
        outputs: Network output name → (blob, shape [1, ...] to give the result).
        blobs: Every blob of the artifact, in the order of its layers; for `tap` and messages.
        fp16: Whether ncnn may compute and store fp16 ("as deployed"); off for the proof.

    Raises:
        MissingRuntimeError: If ncnn is not installed.
        VerificationError: If ncnn refuses the files or dies on them.
    """

    def __init__(
        self,
        param: Path,
        weights: Path,
        *,
        inputs: Mapping[str, str],
        outputs: Mapping[str, tuple[str, tuple[int, ...]]],
        blobs: Mapping[str, Made] | None = None,
        fp16: bool = False,
    ) -> None:
        require()
        self._inputs = dict(inputs)
        self._outputs = dict(outputs)
        self._blobs = dict(blobs or {})
        self._param, self._weights, self._fp16 = param, weights, fp16
        self._open()
        try:
            self._ask(self._load_request())
        except _DiedError as died:
            why = self._last_words(died.code)
            self.close()
            raise self._dead(why, loading_layer(param, weights, fp16=fp16)) from died
        except VerificationError:
            self.close()
            raise

    def _open(self) -> None:
        """Start a child."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._child = subprocess.Popen(  # noqa: S603 - our own module
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )

    def _load_request(self) -> bytes:
        """What a child is asked first."""
        job = {"param": str(self._param), "bin": str(self._weights), "fp16": self._fp16}
        return json.dumps(job).encode()

    @property
    def name(self) -> str:
        """Name and version."""
        return f"ncnn {version('ncnn')}" + (" with fp16" if self._fp16 else "")

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Run once; see `Runtime.run`.

        Raises:
            VerificationError: If ncnn fails or dies, or an output has another number of elements.
        """
        blobs = self.extract(
            self._given(inputs),
            [blob for blob, _ in self._outputs.values()],
        )
        results = {}
        for name, (blob, shape) in self._outputs.items():
            array = blobs[blob]
            # A detection layer finds K rows of 6; every other output has one shape.
            found = -1 in shape and (not array.size or array.shape[-1] == 6)
            if array.size != math.prod(shape) and not found:
                raise VerificationError(
                    f"output '{name}' has shape {list(array.shape)} in ncnn",
                    at=str(self._param),
                    why=f"the model gives {list(shape)}",
                )
            if -1 in shape:
                rows = array if array.size else np.zeros((0, 6), np.float32)
                first = self._blobs[blob].first_label if blob in self._blobs else 0
                results[name] = rows - np.array([first, 0, 0, 0, 0, 0], np.float32)
            else:
                results[name] = array.reshape(shape)
        return results

    @property
    def values(self) -> frozenset[str]:
        """Names of the values that `tap` can read."""
        outputs = {name for name, (blob, _) in self._outputs.items() if blob in self._blobs}
        return frozenset(outputs | (set(self._blobs) - set(self._outputs)))

    def tap(self, inputs: Mapping[str, F32], names: Sequence[str]) -> dict[str, Tap]:
        """Run once and read `names`, among `values`.

        Raises:
            VerificationError: If ncnn fails or dies.
        """
        given = self._given(inputs)
        known = {name: self._outputs[name][0] if name in self._outputs else name for name in names}
        values = self.extract(given, list(dict.fromkeys(known.values())))
        return {name: Tap(values[blob], self._blobs[blob].codes) for name, blob in known.items()}

    def _given(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Input blob → what it is fed: float32, or the bits of int32."""
        given = {}
        for name, blob in self._inputs.items():
            array = np.ascontiguousarray(inputs[name][0], dtype=np.float32)
            made = self._blobs.get(blob)
            indices = made is not None and made.indices
            given[blob] = array.astype(np.int32).view(np.float32) if indices else array
        return given

    def latency(self, inputs: Mapping[str, F32]) -> float:
        """Seconds that ncnn takes for one inference on one thread.

        Raises:
            VerificationError: If ncnn fails or dies.
        """
        outputs = list(dict.fromkeys(blob for blob, _ in self._outputs.values()))
        given = self._given(inputs)
        request = {"inputs": list(given), "outputs": outputs, "timed": True}
        try:
            self._ask(json.dumps(request).encode(), list(given.values()))
        except _DiedError as died:
            raise self._dead(self._last_words(died.code), "") from died
        return float(receive(self._stdout))

    def extract(self, inputs: Mapping[str, F32], blobs: Sequence[str]) -> dict[str, F32]:
        """Feed `inputs` (blob → array without batch axis) and read any `blobs`, as ncnn has them.

        Raises:
            VerificationError: If ncnn fails or dies.
        """
        request = json.dumps({"inputs": list(inputs), "outputs": list(blobs)}).encode()
        given = [np.asarray(inputs[blob], dtype=np.float32) for blob in inputs]
        try:
            self._ask(request, given)
        except _DiedError as died:
            why = self._last_words(died.code)
            raise self._dead(why, self._trace(list(inputs), given)) from died
        except VerificationError as refusal:
            layer = self._trace(list(inputs), given)
            refusal.at = self._place(layer)
            raise
        arrays = [receive(self._stdout) for _ in blobs]
        return {
            blob: np.asarray(array, dtype=np.float32)
            for blob, array in zip(blobs, arrays, strict=True)
        }

    @property
    def _stdout(self) -> IO[bytes]:
        """The child's answers."""
        assert self._child.stdout is not None
        return self._child.stdout

    def _ask(self, request: bytes, arrays: Sequence[F32] = ()) -> None:
        """Send a request and check the answer's status."""
        assert self._child.stdin is not None
        try:
            send(self._child.stdin, np.frombuffer(request, dtype=np.uint8))
            for array in arrays:
                send(self._child.stdin, array)
            self._child.stdin.flush()
            answer = bytes(np.asarray(receive(self._stdout), dtype=np.uint8))
        except (EOFError, OSError) as error:
            raise _DiedError(self._child.wait()) from error
        if answer:
            raise VerificationError(
                f"ncnn refused: {answer.decode()}", at=str(self._param), why=self._last_words(0)
            )

    def _dead(self, why: str, layer: str) -> VerificationError:
        """The error for a child that is gone."""
        return VerificationError("ncnn died on the model", at=self._place(layer), why=why)

    def _place(self, layer: str) -> str:
        """Where a layer stands."""
        return f"layer {layer} in {self._param}" if layer else str(self._param)

    def _trace(self, inputs: Sequence[str], arrays: Sequence[F32]) -> str:
        """The layer on which a fresh child dies when it computes one blob after the other."""
        self.close()
        self._open()
        request = {"inputs": list(inputs), "outputs": list(self._blobs), "trace": True}
        with contextlib.suppress(_DiedError, VerificationError):
            self._ask(self._load_request())
            self._ask(json.dumps(request).encode(), arrays)
            return ""
        self._log.seek(0)
        made = self._blobs.get(last_blob(self._log.read().decode(errors="replace")))
        return made.layer if made is not None else ""

    def _last_words(self, code: int) -> str:
        """The end of what ncnn printed, and how the child ended."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        text = " | ".join(line.strip() for line in lines if line.strip())[-400:]
        if code == 0:
            return text
        ended = f"signal {-code}" if code < 0 else f"exit status {code}"
        return f"{text} ({ended})" if text else ended

    def close(self) -> None:
        """End the child process."""
        if self._log.closed:
            return
        if self._child.stdin is not None and not self._child.stdin.closed:
            with contextlib.suppress(OSError):
                self._child.stdin.close()
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._stdout.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

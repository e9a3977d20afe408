"""The ncnn child: what kills it is named, and it kills nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.errors import VerificationError
from qconvert.runtimes import ncnn, ncnn_trace
from qconvert.runtimes.ncnn import Made, NcnnRuntime

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """7767517
5 5
Input                    data                     0 1 data 0=4 1=4 2=8
ReLU                     before                   1 1 data a
"""
TAIL = """ReLU                     after                    1 1 b c
Sigmoid                  last                     1 1 c y
"""
SUM = "BinaryOp                 sum                      1 1 a b 0=0\n"  # reads a second input
SHUFFLE = "PixelShuffle             shuffle                  1 1 a b 0=5\n"  # 8 channels are no 25


def runtime(folder: Path, layer: str) -> NcnnRuntime:
    param, weights = folder / "x.param", folder / "x.bin"
    param.write_text(HEAD + layer + TAIL)
    weights.write_bytes(bytes(4 + 4 * 8))
    names = {"data": "Input 'data'", "a": "ReLU 'before'", "b": "the one", "c": "ReLU 'after'"}
    return NcnnRuntime(
        param,
        weights,
        inputs={"data": "data"},
        outputs={"y": ("y", (1, 8, 4, 4))},
        blobs={blob: Made(name) for blob, name in names.items()},
    )


def test_a_layer_that_kills_ncnn_while_it_runs_is_named(tmp_path: Path) -> None:
    feed = {"data": np.ones((1, 8, 4, 4), np.float32)}

    with runtime(tmp_path, SUM) as doomed, pytest.raises(VerificationError) as error:
        doomed.run(feed)

    assert error.value.at.startswith("layer the one in ")
    assert "signal" in error.value.why


def test_a_layer_that_ncnn_refuses_to_run_is_named(tmp_path: Path) -> None:
    feed = {"data": np.ones((1, 8, 4, 4), np.float32)}

    with (
        runtime(tmp_path, SHUFFLE) as doomed,
        pytest.raises(VerificationError, match="refused") as error,
    ):
        doomed.run(feed)

    assert error.value.at.startswith("layer the one in ")


FRAGILE = """
import json, struct, sys
(size,) = struct.unpack("<Q", sys.stdin.buffer.read(8))
record = sys.stdin.buffer.read(size)
job = json.loads(record[record.index(b"\\n") + 1 :])
sys.exit(11 if "BinaryOp" in open(job["param"]).read() else 0)
"""


def test_a_layer_that_kills_ncnn_while_it_loads_is_found_by_halving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (ncnn, ncnn_trace):
        monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", FRAGILE))

    with pytest.raises(VerificationError, match="died") as error:
        runtime(tmp_path, SUM)

    assert error.value.at.startswith("layer BinaryOp 'sum' in ")


def test_an_array_in_any_order_arrives_as_it_is(tmp_path: Path, rng: np.random.Generator) -> None:
    plain = rng.normal(size=(1, 8, 4, 4)).astype(np.float32)
    other = np.asfortranarray(plain)

    with runtime(tmp_path, "ReLU                     middle                   1 1 a b\n") as runs:
        np.testing.assert_array_equal(
            runs.run({"data": other})["y"], runs.run({"data": plain})["y"]
        )

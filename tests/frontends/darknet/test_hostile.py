"""Whatever the files hold: our own errors, soon, and without much memory."""

from __future__ import annotations

import contextlib
import random
import time
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.errors import ModelFormatError, UnsupportedError
from qconvert.frontends.darknet.reader import read
from qconvert.report import Report
from qconvert.source import ReadOptions, Source
from tests.frontends.darknet.nets import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TEXT = """[net]
batch=1
channels=3
height=16
width=16
# a comment
[convolutional]
filters=8
size=3
stride=1
pad=1
batch_normalize=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
filters=8
size=3
pad=1
groups=2
activation=mish
[shortcut]
from=-2
activation=linear
[route]
layers=-1,-2
groups=2
group_id=1
[reorg]
stride=2
[upsample]
stride=2
[local]
filters=2
size=3
pad=1
[avgpool]
[connected]
output=14
activation=linear
[convolutional]
filters=14
activation=linear
[yolo]
mask=0,1
anchors=1,2,3,4
num=2
classes=2
scale_x_y=1.1
[route]
layers=2
[softmax]
groups=1
"""
ODD = (
    *("0", "-1", "1", "2147483647", "2147483648", "-2147483648", "1e9", "1e400", "nan", "inf"),
    *("", "abc", "99999999999999999999999", "1,2,3,,", "-1,-1,-1", "3.7", "\x00", "é", "#"),
    *("16777216", "65536", "1000", "[conv]", "0x10", "1 2", "٣"),
)


def mutated(rng: random.Random, text: str, weights: bytes) -> tuple[bytes, bytes]:
    """A network with a few things changed."""
    lines = text.split("\n")
    for _ in range(rng.randint(1, 4)):
        change_line(rng, lines)
    content = bytearray(weights)
    for _ in range(rng.randint(0, 3)):
        change_bytes(rng, content)
    cfg = bytearray("\n".join(lines).encode())
    if rng.random() < 0.2 and cfg:
        cfg[rng.randrange(len(cfg))] = rng.randrange(256)
    return bytes(cfg), bytes(content)


def change_line(rng: random.Random, lines: list[str]) -> None:
    """Drop, double, move, shuffle or cut a line, or give a key a strange value."""
    if not lines:
        return
    place = rng.randrange(len(lines))
    line, other = lines[place], rng.choice(lines)
    begin = rng.randrange(len(lines))
    strange = rng.choice(ODD)
    lines[place : place + 1] = rng.choice(
        [
            [line.split("=")[0] + "=" + strange],
            [],
            [other, line],
            ["".join(rng.sample(line, len(line)))],
            [other.split("=")[0] + "=" + strange, line],
            [*lines[begin : begin + rng.randint(1, 12)], line],
            [line[: rng.randint(0, len(line))]],
        ]
    )


def change_bytes(rng: random.Random, content: bytearray) -> None:
    """Cut the end off, change a byte, or add some."""
    kind = rng.randrange(3)
    if kind == 0:
        del content[rng.randint(0, len(content)) :]
    elif kind == 1 and content:
        content[rng.randrange(len(content))] = rng.randrange(256)
    else:
        content += rng.randbytes(rng.randint(0, 40))


def attack(count: int, seed: int, folder: Path) -> int:
    """Read `count` changed networks; how many were read all the same."""
    source = write(folder, TEXT, np.random.default_rng(seed))
    assert source.weights is not None
    weights = source.weights.read_bytes()
    rng = random.Random(seed)
    read_well = 0
    for _ in range(count):
        cfg, content = mutated(rng, TEXT, weights)
        source.model.write_bytes(cfg)
        source.weights.write_bytes(content)
        random_weights = rng.random() < 0.5
        given = Source(source.model) if random_weights else source
        options = ReadOptions(random_weights=random_weights, detection_output=rng.random() < 0.3)
        begin = time.monotonic()
        try:
            read(given, options, Report())
            read_well += 1
        except (ModelFormatError, UnsupportedError) as error:
            assert error.what  # noqa: PT017 - any of the two, with words
            assert error.at  # noqa: PT017
        assert time.monotonic() - begin < 10
    return read_well


def test_changed_networks_are_read_or_refused(tmp_path: Path) -> None:
    assert 0 < attack(150, 1, tmp_path) < 150


@pytest.mark.slow
def test_two_thousand_changed_networks_are_read_or_refused(tmp_path: Path) -> None:
    with traced() as peak:
        assert 0 < attack(2000, 2, tmp_path) < 2000
        assert peak() < 1 << 30


@contextlib.contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Measures the most memory that was held at a time, in bytes."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


NET = "[net]\nchannels=3\nheight=64\nwidth=64\n"
ABSURD = {
    "layers": NET + "[dropout]\n" * 1_000_000,
    "many_layers": NET + "[dropout]\n" * 200_000,
    "sources": NET + "[dropout]\n[route]\nlayers=" + "0," * 500_000,
    "doubling": NET + "[upsample]\n" * 60,
    "concatenation": NET + "[dropout]\n" + "[route]\nlayers=-1,-1\n" * 60,
    "one_line": NET + "[convolutional]\nfilters=" + "9" * 3_000_000,
    "anchors": NET + "[yolo]\nnum=65536\nanchors=" + "1," * 1_000_000,
    "large_file": NET + "#" * 10_000_000,
    "filters": NET + "[convolutional]\nfilters=2147483647\nsize=3\n",
    "kernel": NET + "[convolutional]\nfilters=1\nsize=16000\npad=1\n",
    "local_kernel": NET + "[local]\nfilters=1\nsize=1025\npad=512\n",
    "output": NET + "[connected]\noutput=4000000\n",
    "normalized": NET + "[convolutional]\nfilters=4000000\nbatch_normalize=1\n" * 2000,
}


@pytest.mark.parametrize("case", sorted(ABSURD))
def test_absurd_sizes_are_refused_at_once(case: str, tmp_path: Path) -> None:
    path = tmp_path / "net.cfg"
    path.write_text(ABSURD[case])
    begin = time.monotonic()

    with traced() as peak:
        with pytest.raises((ModelFormatError, UnsupportedError)):
            read(Source(path), ReadOptions(random_weights=True), Report())
        assert peak() < 300 << 20

    assert time.monotonic() - begin < 10

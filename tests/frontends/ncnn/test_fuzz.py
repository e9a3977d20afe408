"""Damaged files: an error that names the trouble, or a graph; nothing else."""

from __future__ import annotations

import random
import re
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qconvert.errors import ModelFormatError, UnsupportedError
from qconvert.formats.ncnn_bin import Buffer, write
from qconvert.formats.ncnn_param import parse
from qconvert.formats.ncnn_weights import slots
from qconvert.frontends.ncnn import read
from qconvert.report import Report
from qconvert.source import ReadOptions, Source

NETWORK: Final = """7767517
17 20
Input data 0 1 data 0=8 1=8 2=4
Convolution conv 1 1 data conv 0=4 1=3 4=1 5=1 6=144 8=102 9=2 -23310=1,1.000000e-01
Convolution conv2 1 1 conv conv2 0=6 1=1 6=24 8=2 9=3 -23310=2,0.0,6.0
BatchNorm bn 1 1 conv2 bn 0=6 1=1e-05
Split splitncnn_0 1 3 bn bn_splitncnn_0 bn_splitncnn_1 bn_splitncnn_2
Pooling pool 1 1 bn_splitncnn_0 pool 0=1 1=3 2=2 3=1
Interp up 1 1 pool up 0=2 1=2.0 2=2.0
ConvolutionDepthWise dw 1 1 bn_splitncnn_1 dw 0=6 1=3 4=-233 6=54 7=6
Slice slice 1 2 dw s0 s1 -23300=2,2,-233
Concat cat 2 1 s1 s0 cat
ShuffleChannel shuffle 1 1 cat shuffle 0=2
Crop crop 1 1 shuffle crop -23309=2,1,1 -23310=2,-233,7 -23311=2,1,2
BinaryOp add 1 1 up add 1=1 2=0.5
Reshape reshape 1 1 bn_splitncnn_2 reshape 0=-1 1=6
Permute permute 1 1 reshape permute 0=1
Softmax softmax 1 1 permute softmax 0=1 1=1
InnerProduct fc 1 1 crop fc 0=5 1=1 2=1260
"""
NUMBERS: Final = ("0", "1", "-1", "-233", "-234", "2147483647", "1e38", "nan", "7", "100000", "")


def weights(text: str) -> bytes:
    rng = np.random.default_rng(3)
    buffers = []
    for layer in parse(text).layers:
        for slot in slots(layer):
            values = rng.uniform(0.5, 2.0, slot.count).astype(np.float32)
            buffers.append(Buffer(values, tagged=slot.tagged))
    with tempfile.TemporaryFile() as file:
        write(buffers, file)
        file.seek(0)
        return file.read()


CONTENT: Final = weights(NETWORK)


def damage_text(text: str, dice: random.Random) -> str:
    """One to four changes of numbers, words, characters or lines."""
    for _ in range(dice.randint(1, 4)):
        kind = dice.randrange(5)
        places = list(re.finditer(r"-?\d+(\.\d+)?", text))
        if kind <= 1 and places:
            place = dice.choice(places)
            text = text[: place.start()] + dice.choice(NUMBERS) + text[place.end() :]
        elif kind == 2:
            words = text.split(" ")
            i, j = (dice.randrange(len(words)) for _ in range(2))
            words[i], words[j] = words[j], words[i]
            text = " ".join(words)
        elif kind == 3 and text:
            at = dice.randrange(len(text))
            text = text[:at] + dice.choice('\0\n ="é,=-9e.') + text[at + 1 :]
        else:
            lines = text.split("\n")
            at = dice.randrange(len(lines))
            lines[at : at + 1] = dice.choice([[], [lines[at]] * 2])
            text = "\n".join(lines)
    return text


def damage_bytes(content: bytes, dice: random.Random) -> bytes:
    """Cut, stretched, or with some bytes changed."""
    changed = bytearray(content)
    for _ in range(dice.randint(0, 6)):
        changed[dice.randrange(len(changed))] = dice.choice((0, 255, 127, dice.randrange(256)))
    if dice.random() < 0.3:
        del changed[dice.randrange(len(changed)) :]
    return bytes(changed) + bytes(dice.choice((0, 0, 3)))


def attempt(dice: random.Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Source(Path(folder) / "m.param", Path(folder) / "m.bin")
        text = damage_text(NETWORK, dice) if dice.random() < 0.9 else NETWORK
        source.model.write_bytes(text.encode())
        assert source.weights is not None
        source.weights.write_bytes(damage_bytes(CONTENT, dice) if dice.random() < 0.4 else CONTENT)
        chance = dice.random() < 0.2
        given = Source(source.model) if chance else source
        try:
            read(given, ReadOptions(random_weights=chance), Report())
        except (ModelFormatError, UnsupportedError) as error:
            assert error.what  # noqa: PT017 - a network that survives is as good


def test_the_undamaged_network_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.param").write_text(NETWORK)
    (tmp_path / "m.bin").write_bytes(CONTENT)
    report = Report()

    model = read(Source(tmp_path / "m.param", tmp_path / "m.bin"), ReadOptions(), report)

    assert [value.name for value in model.graph.outputs] == ["add", "softmax", "fc"]


@given(st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_damaged_files_are_refused_or_read(dice: random.Random) -> None:
    attempt(dice)


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(max_examples=2000)
def test_two_thousand_damaged_files_are_refused_or_read(seed: int) -> None:
    attempt(random.Random(seed))

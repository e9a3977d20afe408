"""Damaged files: refused with one of our errors, quickly and in little memory, or read soundly."""

from __future__ import annotations

import re
import resource
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qconvert.errors import ModelFormatError, UnsupportedError
from qconvert.frontends import caffe
from qconvert.report import Report
from qconvert.source import ReadOptions, Source
from tests.frontends.caffe import test_definition, test_detection, test_opencv
from tests.frontends.caffe.digits import V0, V1, V2, weights
from tests.frontends.caffe.nets import caffemodel, check
from tests.frontends.caffe.test_reading import TRAIN_VAL

if TYPE_CHECKING:
    from pathlib import Path

NETS = [
    *test_opencv.CASES,
    *(case.net for case in test_definition.CASES),
    *(test_detection.detector(case) for case in test_detection.CASES),
    *(test_opencv.prior(body) for body in test_opencv.PRIORS),
]
FILES = [
    *((net.prototxt, caffemodel(net.weights())) for net in NETS),
    *((text, caffemodel(weights())) for text in (V0, V1, V2, TRAIN_VAL)),
]

NUMBERS = re.findall(
    r"\S+",
    """0 1 -1 2 3 7 255 -2147483648 2147483647 2147483648 4294967295 1000000000 1000000 65536
    9223372036854775807 18446744073709551616 1e30 -1e30 nan -inf 0.5 1e-30 true MAX""",
)
SIGNS = re.findall(
    r"\S+", """{ } < > [ ] : ; , " # \\ layer layers dim: type: bottom:"x" top:"x" """
)
WORDS = [*NUMBERS, *SIGNS, "\n"]

Edit = tuple[str, float, float, str]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["number", "word", "delete", "repeat", "swap", "insert"]),
        st.floats(0, 1),
        st.floats(0, 1),
        st.sampled_from(WORDS),
    ),
    min_size=1,
    max_size=4,
)
# "kind, place, size, payload" of changes to the binary.
CUTS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "delete", "insert", "cut", "repeat"]),
        st.floats(0, 1),
        st.integers(1, 40),
        st.binary(min_size=1, max_size=12),
    ),
    max_size=4,
)


def _edited(text: str, edits: list[Edit]) -> str:
    """`text` with token-wise changes."""
    for kind, first, second, word in edits:
        tokens = re.findall(r'\s+|"[^"]*"|[\w.+-]+|.', text)
        places = [
            index
            for index, token in enumerate(tokens)
            if not token.isspace() and (kind != "number" or re.fullmatch(r"[\d.]+", token))
        ]
        if not places:
            continue
        here, there = (places[min(int(f * len(places)), len(places) - 1)] for f in (first, second))
        low, high = min(here, there), max(here, there)
        if kind in ("number", "word"):
            tokens[here] = word
        elif kind == "insert":
            tokens.insert(here, f" {word} ")
        elif kind == "delete":
            del tokens[low : min(high, low + 30)]
        elif kind == "repeat":
            tokens[low:low] = tokens[low : min(high, low + 60)]
        else:
            tokens[here], tokens[there] = tokens[there], tokens[here]
        text = "".join(tokens)
    return text


def _damaged(data: bytes, cuts: list[tuple[str, float, int, bytes]]) -> bytes:
    """`data` with byte-wise changes."""
    for kind, place, size, payload in cuts:
        at = int(place * len(data))
        head, tail = data[:at], data[at:]
        match kind:
            case "flip":
                data = head + payload + tail[len(payload) :]
            case "delete":
                data = head + tail[size:]
            case "insert":
                data = head + payload + tail
            case "repeat":
                data = head + tail[:size] + tail
            case _:
                data = head
    return data


def _survives(text: str, data: bytes, folder: Path) -> None:
    """The pair is refused as it should be, or gives a sound model; fast, and in little memory."""
    (folder / "net.prototxt").write_text(text)
    (folder / "net.caffemodel").write_bytes(data)
    source = Source(folder / "net.prototxt", folder / "net.caffemodel")
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try:
        model = caffe.read(source, ReadOptions(), Report())
    except (ModelFormatError, UnsupportedError) as error:
        assert error.what  # noqa: PT017 - the claim is about every outcome
    else:
        check(model)
    assert time.perf_counter() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
PAIRS = st.sampled_from(FILES)


@settings(FUZZ, max_examples=100)
@given(pair=PAIRS, edits=EDITS, cuts=CUTS)
def test_damaged_files_are_refused_or_sound(
    pair: tuple[str, bytes],
    edits: list[Edit],
    cuts: list[tuple[str, float, int, bytes]],
    tmp_path: Path,
) -> None:
    _survives(_edited(pair[0], edits), _damaged(pair[1], cuts), tmp_path)


@pytest.mark.slow
@settings(FUZZ, max_examples=1500)
@given(pair=PAIRS, edits=EDITS)
def test_any_damaged_prototxt_is_refused_or_sound(
    pair: tuple[str, bytes], edits: list[Edit], tmp_path: Path
) -> None:
    _survives(_edited(pair[0], edits), pair[1], tmp_path)


@pytest.mark.slow
@settings(FUZZ, max_examples=500)
@given(pair=PAIRS, cuts=CUTS)
def test_any_damaged_caffemodel_is_refused_or_sound(
    pair: tuple[str, bytes], cuts: list[tuple[str, float, int, bytes]], tmp_path: Path
) -> None:
    _survives(pair[0], _damaged(pair[1], cuts), tmp_path)


@pytest.mark.slow
@settings(FUZZ, max_examples=300)
@given(text=st.text(st.sampled_from('layer{}:[]<>"#\\ \n\t0129.-xtyp,;'), max_size=300))
def test_any_text_is_refused_or_sound(text: str, tmp_path: Path) -> None:
    _survives(text, b"", tmp_path)

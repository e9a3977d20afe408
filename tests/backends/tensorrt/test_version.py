"""Versions: headers, opsets, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from qconvert.backends.tensorrt.options import read
from qconvert.backends.tensorrt.version import parse
from qconvert.errors import UsageError


@dataclass(frozen=True)
class Case:
    text: str
    number: int
    opset: int
    cache: bool = True
    qdq: bool = True

    @property
    def id(self) -> str:
        return self.text


# Numbers as they stand in caches that TensorRT itself wrote.
CASES = [
    Case("5.1.0", 5100, 9, qdq=False),
    Case("7.0.0", 7000, 11, qdq=False),
    Case("7.1.3", 7103, 11, qdq=False),
    Case("8.2.3", 8203, 13),
    Case("8.4.0", 8400, 17),
    Case("8.6.1", 8601, 17),
    Case("8.6.2.3", 8602, 17),
    Case("8.6", 8600, 17),
    Case("9.3.0", 9300, 19),
    Case("10.3.0", 100300, 20),
    Case("10.14.1", 101401, 20),
    Case("11.0", 110000, 20, cache=False),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_versions_say_what_they_read(case: Case) -> None:
    version = parse(case.text)

    assert version.number == case.number
    assert version.opset == case.opset
    assert (version.reads_cache, version.reads_qdq) == (case.cache, case.qdq)


@pytest.mark.parametrize("text", ["", "8", "eight", "8.6.1-rc", "8.6.x", "8601", "-8.6", "8..1"])
def test_a_malformed_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as error:
        read({"trt_version": text})

    assert "8.6.1" in error.value.fix


@pytest.mark.parametrize("text", ["4.0.1", "12.0", "8.16.1", "0.0.1"])
def test_an_unknown_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a version that qconvert knows"):
        parse(text)


def test_a_cache_for_version_11_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match="reads no calibration cache") as error:
        read({"trt_version": "11.0", "emit": ("cache",)})

    assert "removed calibrators" in error.value.why


def test_qdq_for_version_7_is_refused() -> None:
    with pytest.raises(UsageError, match="does not read Q/DQ"):
        read({"trt_version": "7.2.3", "emit": ("qdq",)})


def test_an_unknown_file_is_refused() -> None:
    with pytest.raises(UsageError, match="--emit mif"):
        read({"trt_version": "8.6.1", "emit": ("ppq", "mif")})
